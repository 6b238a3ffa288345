"""The user's own questions: a JSON lines file, a picture and one or more answers for each.

    {"id": "1", "image": "photos/1.jpg", "question": "What is it?", "answer": "a cat", "metric": "exact"}

`answer` or `answers`; `metric` is one of `exact` (the default), `choice` (with `options`), `yes_no`, `anls` and
`relaxed`. Image paths are relative to the file. Every `kind` is reported apart; without one, every metric.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from fusionvl.eval.scorers import (
    LETTER,
    lettered,
    score_anls,
    score_choice,
    score_exact,
    score_relaxed,
    score_yes_no,
)
from fusionvl.eval.task import Mark, Task, TaskQuestion
from fusionvl.run_folder import fingerprint

_SEVERAL: dict[str, Callable[[str, Sequence[str]], Mark]] = {
    "exact": score_exact,
    "anls": score_anls,
    "relaxed": score_relaxed,
}
METRICS = (*_SEVERAL, "choice", "yes_no")
_KEYS = {"id", "image", "question", "answer", "answers", "metric", "options", "kind"}
_EXAMPLE = '{"id": "1", "image": "1.jpg", "question": "What is it?", "answer": "a cat"}'


def question_file(path: Path) -> Task:
    """The questions of a file.

    Raises:
        ValueError: When there is no such file, or a line is no question; with file and line.
    """
    if not path.is_file() or path.suffix != ".jsonl":
        raise ValueError(f"{path} is not a .jsonl file; it must hold lines like {_EXAMPLE}")
    questions = [_question(row, path.parent, where) for row, where in _rows(path)]
    return Task(
        name=f"own-{path.stem}",  # a file called pope.jsonl is not the benchmark
        title=f"Questions of {path.name}",
        source=str(path),
        questions=questions,
        score=_score,
        headline="score",
        max_new_tokens=64,
    )


def _rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The lines that hold something, each with where it stands."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}") from error
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not valid JSON ({error})") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where}: must be an object, not {type(row).__name__}")
        yield row, where


def _question(row: dict[str, Any], folder: Path, where: str) -> TaskQuestion:
    unknown, missing = row.keys() - _KEYS, {"id", "question"} - row.keys()
    if unknown or missing:
        raise ValueError(f"{where}: unknown {sorted(unknown)}, missing {sorted(missing)}; a line is {_EXAMPLE}")
    metric = _one_of(row.get("metric", "exact"), METRICS, f"{where}: metric")
    options = lettered(_texts(row.get("options", []), "options", where))
    prompt = str(row["question"])
    if metric == "choice":
        prompt = "\n".join([prompt, *(f"{letter}. {text}" for letter, text in options.items()), LETTER])
    image = _image(row.get("image"), folder, where)
    return TaskQuestion(
        id=str(row["id"]),
        prompt=prompt,
        image=image,
        # By content: what was scored with another picture under the same name is another question.
        image_id=fingerprint(image)[:16] if image else "",
        reference=_answers(row, metric, options, where),
        details={"metric": metric, "kind": str(row.get("kind", metric)), "options": options},
    )


def _answers(row: dict[str, Any], metric: str, options: Collection[str], where: str) -> list[str]:
    if ("answer" in row) == ("answers" in row):
        raise ValueError(f"{where}: give either 'answer' or 'answers'")
    answers = _texts(row["answers"] if "answers" in row else [row["answer"]], "answers", where)
    if not answers:
        raise ValueError(f"{where}: 'answers' is an empty list")
    if metric in _SEVERAL:
        return answers
    if len(answers) != 1:
        raise ValueError(f"{where}: the metric {metric} takes one answer, not {len(answers)}")
    if metric == "yes_no":
        return [_one_of(answers[0].strip().lower(), ("yes", "no"), f"{where}: answer")]
    if len(options) < 2:
        raise ValueError(f"{where}: the metric choice needs 'options', a list of at least two")
    return [_one_of(answers[0].strip().upper(), options, f"{where}: answer")]


def _one_of(value: object, allowed: Collection[str], where: str) -> str:
    if value not in allowed:
        raise ValueError(f"{where}: {value!r} is none of {', '.join(allowed)}")
    return str(value)


def _texts(given: object, key: str, where: str) -> list[str]:
    if not isinstance(given, list) or not all(str(entry).strip() for entry in given):
        raise ValueError(f"{where}: {key!r} must be a list of texts, none of them empty")
    return [str(entry) for entry in given]


def _image(name: object, folder: Path, where: str) -> Path | None:
    if name is None:
        return None
    path = folder / str(name)
    if not path.is_file():
        raise ValueError(f"{where}: there is no image {path}; paths are relative to the file with the questions")
    return path


def _score(question: TaskQuestion, answer: str) -> Mark:
    metric, references = question.details["metric"], question.reference
    if metric == "choice":
        return score_choice(answer, references[0], question.details["options"])
    if metric == "yes_no":
        return score_yes_no(answer, references[0])
    return _SEVERAL[metric](answer, references)
