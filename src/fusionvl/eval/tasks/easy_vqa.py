"""easy-VQA: the official test questions about coloured shapes; the published comparison is a CNN+LSTM with 87.60 %.

The questions come with the Python package `easy-vqa`. Answers must be the reference, letter by letter.
"""

from collections.abc import Sequence
from pathlib import Path

from fusionvl.data.easy_vqa import load_split
from fusionvl.eval.scorers import score_identical
from fusionvl.eval.summaries import mean_score
from fusionvl.eval.task import Judge, Question, Task, Verdict

_SHAPES = ("circle", "rectangle", "triangle")


def _load(folder: Path | None) -> Sequence[Question]:
    if folder is not None:
        raise ValueError(f"easy_vqa: its questions come with the package easy-vqa, not from {folder}; give no folder")
    return [
        Question(
            id=f"{image.id}-q{number}",
            prompt=turn.question,
            image=image.path,
            image_id=str(image.id),
            reference=turn.answer,
            details={"kind": _kind(turn.answer)},
        )
        for image in load_split("test")
        for number, turn in enumerate(image.turns)
    ]


def _kind(answer: str) -> str:
    if answer in ("yes", "no"):
        return "yes/no"
    return "shape" if answer in _SHAPES else "colour"


def _score(question: Question, answer: str, judge: Judge | None) -> Verdict:
    return score_identical(answer, question.reference)


TASKS = (
    Task(
        name="easy_vqa",
        title="easy-VQA, test",
        source="the Python package easy-vqa: pip install 'fusionvl[easy-vqa]'",
        load=_load,
        score=_score,
        summarise=mean_score("kind"),
        headline="accuracy",
        max_new_tokens=8,
        comes_with_package=True,
    ),
)
