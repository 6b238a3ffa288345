"""Generated scenes as a test set: a run of the data engine with `split=held-out`, exported as LLaVA JSON.

Every question that asks for a word, a phrase or a letter is asked on its own, with its picture; those that are
answered in sentences are left out, since an exact match would measure their wording. Knows the folder's files, not how
they came about.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusionvl.data.llava import read_llava
from fusionvl.data.mixture_file import read_mixture_file
from fusionvl.eval.scorers import LETTER, WORD, score_choice, score_exact
from fusionvl.eval.task import Mark, Task, TaskQuestion

SOURCE = "a folder written by: fusionvl synth export RUN --all, of a run with split=held-out"
_OPTION = re.compile(r"^([A-Z])\. (.+)$", re.MULTILINE)


def held_out_scenes(folder: Path) -> Task:
    """The short questions about the scenes of a folder.

    Raises:
        ValueError: When the folder is not of held-out scenes, or has no short questions.
    """
    provenance, mixture = folder / "provenance.json", folder / "mixture.yaml"
    if not provenance.is_file() or not mixture.is_file():
        raise ValueError(f"{folder} holds no provenance.json and mixture.yaml: give {SOURCE}")
    run = json.loads(provenance.read_text(encoding="utf-8")).get("run.json", {})
    split = run.get("settings", {}).get("split")
    if split != "held-out":
        raise ValueError(f"{folder} holds scenes of the split {split!r}, not of the test set: give {SOURCE}")
    files = [file for entry in read_mixture_file(mixture) for file in entry.files]
    return Task(
        name="scenes",
        title="Generated scenes, held out",
        source=str(folder),
        questions=[question for file in files for question in short_questions(file)],
        score=score_scene,
        kinds=("kind", "form"),
        max_new_tokens=48,
    )


def short_questions(file: Path) -> Iterator[TaskQuestion]:
    """The questions of a file that are answered in a word or a letter; the file is named after their kind."""
    for sample in read_llava(file):
        for number, turn in enumerate(sample.turns):
            if turn.question.endswith((WORD, LETTER)):
                yield TaskQuestion(
                    id=f"{sample.id}-q{number}",
                    prompt=turn.question,
                    image=sample.image,
                    image_id=sample.id,
                    reference=turn.answer,
                    details={"kind": file.stem, **_form(turn.question, turn.answer)},
                )


def score_scene(question: TaskQuestion, answer: str) -> Mark:
    """The right letter, or equal words; the order of an enumeration does not count."""
    if question.details["form"] == "letter":
        return score_choice(answer, question.reference, question.details["options"])
    return score_exact(_in_order(answer), [_in_order(question.reference)])


def _form(question: str, answer: str) -> dict[str, Any]:
    if question.endswith(LETTER):
        return {"form": "letter", "options": dict(_OPTION.findall(question))}
    if answer.casefold() in ("yes", "no"):
        return {"form": "yes/no"}
    return {"form": "number" if answer.isdigit() else "words"}


def _in_order(answer: str) -> str:
    """An enumeration in alphabetical order: "red, blue" is as right as "blue, red"."""
    plain = answer.strip().removesuffix(".")
    return ", ".join(sorted(item.strip().casefold() for item in plain.split(",")))
