"""Generated scenes as a test set: a folder that `fusionvl synth scenes FOLDER --split held-out` wrote.

Every question that asks for a word, a phrase or a letter is asked on its own, with its picture; those that are
answered in sentences are left out, since an exact match would measure their wording. Knows the folder's files, not how
they came about.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fusionvl.data.llava import read_llava
from fusionvl.data.mixture_file import read_mixture_file
from fusionvl.eval.scorers import score_choice, score_exact
from fusionvl.eval.summaries import mean_score
from fusionvl.eval.task import Judge, Question, Task, Verdict
from fusionvl.eval.tasks.questions import LETTER, WORD, unique

_COMMAND = "fusionvl synth scenes FOLDER --split held-out"
_OPTION = re.compile(r"^([A-Z])\. (.+)$", re.MULTILINE)


def _load(folder: Path | None) -> Sequence[Question]:
    if folder is None:
        raise ValueError(f"scenes: give the folder that was written by: {_COMMAND}")
    settings, mixture = folder / "scenes.json", folder / "mixture.yaml"
    if not settings.is_file() or not mixture.is_file():
        raise ValueError(f"{folder} holds no scenes.json and mixture.yaml; write a test set with: {_COMMAND}")
    split = json.loads(settings.read_text(encoding="utf-8")).get("split")
    if split != "held-out":
        raise ValueError(f"{folder} holds scenes of the split {split!r}, not of the test set: {_COMMAND}")
    files = [file for entry in read_mixture_file(mixture) for file in entry.files]
    return unique((question for file in files for question in _questions(file)), str(folder))


def _questions(file: Path) -> Iterator[Question]:
    """The short questions of a file, which is named after the kind of its scenes."""
    for sample in read_llava(file):
        for number, turn in enumerate(sample.turns):
            if turn.question.endswith((WORD, LETTER)):
                yield Question(
                    id=f"{sample.id}-q{number}",
                    prompt=turn.question,
                    image=sample.image,
                    image_id=sample.id,
                    reference=turn.answer,
                    details={"kind": file.stem, **_form(turn.question, turn.answer)},
                )


def _form(question: str, answer: str) -> dict[str, Any]:
    if question.endswith(LETTER):
        return {"form": "letter", "options": dict(_OPTION.findall(question))}
    if answer.casefold() in ("yes", "no"):
        return {"form": "yes/no"}
    return {"form": "number" if answer.isdigit() else "words"}


def _score(question: Question, answer: str, judge: Judge | None) -> Verdict:
    if question.details["form"] == "letter":
        return score_choice(answer, question.reference, question.details["options"])
    return score_exact(_in_order(answer), [_in_order(question.reference)])


def _in_order(answer: str) -> str:
    """An enumeration in alphabetical order: "red, blue" is as right as "blue, red"."""
    plain = answer.strip().removesuffix(".")
    return ", ".join(sorted(item.strip().casefold() for item in plain.split(",")))


TASKS = (
    Task(
        name="scenes",
        title="Generated scenes, held out",
        source=f"a folder written by: {_COMMAND}",
        load=_load,
        score=_score,
        summarise=mean_score("kind", "form"),
        headline="accuracy",
        max_new_tokens=48,
    ),
)
