"""easy-VQA: the official test questions about coloured shapes; the published comparison is a CNN+LSTM with 87.60 %.

The questions come with the Python package `easy-vqa`. Answers must be the reference, letter by letter.
"""

from fusionvl.data.easy_vqa import load_split
from fusionvl.eval.scorers import score_identical
from fusionvl.eval.task import Mark, Task, TaskQuestion

_SHAPES = ("circle", "rectangle", "triangle")


def easy_vqa_test() -> Task:
    """The test with all its 9,673 questions.

    Raises:
        ModuleNotFoundError: When the package is not installed; says how to install it.
    """
    questions = [
        TaskQuestion(
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
    return Task("easy_vqa", "easy-VQA, test", "the Python package easy-vqa", questions, _score, max_new_tokens=8)


def _kind(answer: str) -> str:
    if answer in ("yes", "no"):
        return "yes/no"
    return "shape" if answer in _SHAPES else "colour"


def _score(question: TaskQuestion, answer: str) -> Mark:
    return score_identical(answer, question.reference)
