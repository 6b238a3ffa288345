"""The user's own questions: a JSON lines file, a picture and one or more answers for each.

    {"id": "1", "image": "photos/1.jpg", "question": "What is it?", "answer": "a cat", "metric": "exact"}

`answer` or `answers`; `metric` is one of `exact` (the default), `choice` (with `options`), `yes_no`, `vqa`, `anls` and
`relaxed`. Image paths are relative to the file. A `kind` is reported apart.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fusionvl.eval.scorers import score_anls, score_choice, score_exact, score_relaxed, score_vqa, score_yes_no
from fusionvl.eval.sources import read_rows
from fusionvl.eval.summaries import Summary, groups, mean_score, percent, scored
from fusionvl.eval.task import Judge, Question, Sample, Task, Verdict
from fusionvl.eval.tasks.questions import choice_prompt, lettered, one_of, unique

_SEVERAL: dict[str, Callable[[str, Sequence[str]], Verdict]] = {
    "exact": score_exact,
    "vqa": score_vqa,
    "anls": score_anls,
    "relaxed": score_relaxed,
}
METRICS = (*_SEVERAL, "choice", "yes_no")
_KEYS = {"id", "image", "question", "answer", "answers", "metric", "options", "kind"}
_EXAMPLE = '{"id": "1", "image": "1.jpg", "question": "What is it?", "answer": "a cat"}'


def _load(path: Path | None) -> Sequence[Question]:
    if path is None:
        raise ValueError(f"own: give the JSON lines file with your questions; a line is {_EXAMPLE}")
    if path.is_dir():
        found = sorted(path.glob("*.jsonl"))
        if len(found) != 1:
            raise ValueError(f"{path} holds {len(found)} .jsonl files; give the one with your questions")
        path = found[0]
    if not path.is_file() or path.suffix != ".jsonl":
        raise ValueError(f"{path} is not a .jsonl file; it must hold lines like {_EXAMPLE}")
    return unique(
        (_question(row, path.parent, f"{path}, question {number}") for number, row in enumerate(read_rows(path), 1)),
        str(path),
    )


def _question(row: dict[str, Any], folder: Path, where: str) -> Question:
    unknown = row.keys() - _KEYS
    missing = {"id", "question"} - row.keys()
    if unknown or missing:
        raise ValueError(f"{where}: unknown {sorted(unknown)}, missing {sorted(missing)}; a line is {_EXAMPLE}")
    metric = one_of(row.get("metric", "exact"), METRICS, f"{where}: metric")
    options = lettered(_list(row.get("options", []), "options", where))
    answers = _answers(row, metric, options, where)
    image = _image(row.get("image"), folder, where)
    question = str(row["question"])
    return Question(
        id=str(row["id"]),
        prompt=choice_prompt(question, options) if metric == "choice" else question,
        image=image,
        # By content: what was scored with another picture under the same name is another question.
        image_id=hashlib.sha256(image.read_bytes()).hexdigest()[:16] if image else str(row["id"]),
        reference=answers,
        details={"metric": metric, "kind": str(row.get("kind", metric)), "options": options},
    )


def _answers(row: dict[str, Any], metric: str, options: dict[str, str], where: str) -> list[str]:
    if ("answer" in row) == ("answers" in row):
        raise ValueError(f"{where}: give either 'answer' or 'answers'")
    answers = _list(row["answers"] if "answers" in row else [row["answer"]], "answers", where)
    if not answers:
        raise ValueError(f"{where}: 'answers' is an empty list")
    if metric in ("choice", "yes_no"):
        if len(answers) != 1:
            raise ValueError(f"{where}: the metric {metric} takes one answer, not {len(answers)}")
        if metric == "choice" and len(options) < 2:
            raise ValueError(f"{where}: the metric choice needs 'options', a list of at least two")
        if metric == "choice":
            return [one_of(answers[0].strip().upper(), options, f"{where}: answer")]
        return [one_of(answers[0].strip().lower(), ("yes", "no"), f"{where}: answer")]
    return answers


def _list(given: object, key: str, where: str) -> list[str]:
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


def _score(question: Question, answer: str, judge: Judge | None) -> Verdict:
    metric = question.details["metric"]
    if metric == "choice":
        return score_choice(answer, question.reference[0], question.details["options"])
    if metric == "yes_no":
        return score_yes_no(answer, question.reference[0])
    return _SEVERAL[metric](answer, question.reference)


def _summarise(samples: Sequence[Sample]) -> Summary:
    """The mean of all scores, of each metric and of each kind."""
    by_metric = groups(scored(samples), lambda sample: sample.details["metric"])
    means = {metric: percent(sample.score for sample in own) for metric, own in sorted(by_metric.items())}
    return {**mean_score("kind", metric="score")(samples), **means}


TASKS = (
    Task(
        name="own",
        title="Own questions",
        source="a JSON lines file: id, image, question, answer or answers, and where it is not exact: metric",
        load=_load,
        score=_score,
        summarise=_summarise,
        headline="score",
        max_new_tokens=64,
    ),
)
