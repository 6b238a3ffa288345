"""Reads what lmms-eval wrote about a benchmark: its metrics, and a score for each question.

Where lmms-eval writes no number for a question, or not the official formula, its own functions are asked; nothing is
scored here. Knows lmms-eval's files and functions; knows no model and starts nothing.
"""

import importlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import fmean
from typing import Any

from fusionvl.eval.finished_answers import FINISHED, FinishedAnswer, read_finished
from fusionvl.eval.paper_tasks import PaperMetric, PaperTask
from fusionvl.eval.score_store import Results, scores_of, write_scores
from fusionvl.eval.task import ScoredAnswer
from fusionvl.run_folder import read_rows

Entry = Any
"""What a task logs of one question under a metric's name: a number, or a mapping."""
LoggedSample = Mapping[str, Any]
"""A line of lmms-eval's samples."""
_ROUNDED = 0.06  # MMMU's share has three digits
_NUMBERS = ("score", "is_correct", "true_false")
_CIRCULAR = 1_000_000
"""MMBench asks a question again with its options rotated; such a row's index is this much higher."""


def keep_benchmark(task: PaperTask, folder: Path, results_file: Path, notes: Sequence[str] = ()) -> Results:
    """Write a benchmark's scores into the folder in the one form of all scores.

    Args:
        task: The benchmark.
        folder: Of its scores.
        results_file: lmms-eval's `*_results.json`; its samples lie beside it.
        notes: What a reader of the scores must know besides the benchmark's own note.

    Raises:
        ValueError: When a metric is not there, or has no value.
    """
    written = json.loads(results_file.read_text(encoding="utf-8"))
    samples_file = results_file.with_name(results_file.name.replace("_results.json", f"_samples_{task.name}.jsonl"))
    samples = sorted(read_rows(samples_file, dict), key=lambda sample: sample["doc_id"])
    finished = {answer.doc_id: answer for answer in read_finished(folder / FINISHED) if answer.task == task.name}
    metrics: dict[str, tuple[float, list[ScoredAnswer]]] = {}
    every: list[ScoredAnswer] = []
    troubles = list(notes)
    for metric in task.metrics:
        answers = _answers(task, metric, samples, finished)
        every += answers
        try:
            value = metric.factor * _value(task, metric, written["results"][task.name], samples)
        except ValueError as error:
            troubles.append(f"{metric.column}: {error}")
        else:
            metrics[metric.column] = (value, answers if metric.is_mean and _is_mean(value, answers) else [])
    counts = written["n-samples"][task.name]
    return write_scores(
        folder,
        every,
        metrics,
        task=task.name,
        title=task.title,
        not_asked=counts["original"] - counts["effective"],
        notes=[*troubles, *filter(None, [task.note])],
    )


def _is_mean(value: float, answers: Sequence[ScoredAnswer]) -> bool:
    """Not of answers without scores, nor of OCRBench's first questions, which are out of a thousand all the same."""
    scores = scores_of(answers)
    return len(scores) == len(answers) > 0 and math.isclose(value, 100 * fmean(scores), abs_tol=_ROUNDED)


def _value(task: PaperTask, metric: PaperMetric, results: Mapping[str, Any], samples: Sequence[LoggedSample]) -> float:
    """The number of a metric, in lmms-eval's unit."""
    if task.name == "cv_bench":
        entries = [sample["cv_bench_acc"] for sample in samples]
        try:
            return float(_lmms_eval("cv_bench.utils", "cv_bench_default_aggregate_results", entries))
        except KeyError as error:
            raise ValueError(f"CV-Bench is the mean over its sources, and no question of {error} was asked") from error
    value = results.get(metric.key)
    if not isinstance(value, int | float):
        raise ValueError(f"lmms-eval reports no {metric.key}, but {value!r} among {', '.join(sorted(results))}")
    return float(value)


def _answers(
    task: PaperTask, metric: PaperMetric, samples: Sequence[LoggedSample], finished: Mapping[int, FinishedAnswer]
) -> list[ScoredAnswer]:
    """A scored answer for each question that counts in a metric."""
    name = metric.key.split(",")[0]
    groups: dict[str, list[LoggedSample]] = {}
    for sample in samples:
        if name in sample:
            groups.setdefault(_question_of(task, sample[name], sample["doc_id"]), []).append(sample)
    return [
        _answer(identity, own, finished, _score(task, [sample[name] for sample in own]))
        for identity, own in groups.items()
    ]


def _question_of(task: PaperTask, entry: Entry, doc_id: int) -> str:
    """Rotations of one question of MMBench only count together."""
    return str(entry["index"] % _CIRCULAR if task.name.startswith("mmbench") else doc_id)


def _answer(
    identity: str, samples: Sequence[LoggedSample], finished: Mapping[int, FinishedAnswer], score: float | None
) -> ScoredAnswer:
    own = [finished[sample["doc_id"]] for sample in samples if sample["doc_id"] in finished]
    output = "\n".join(str(sample["filtered_resps"]) for sample in samples)
    return ScoredAnswer(
        id=identity,
        prompt=str(samples[0]["input"]),
        output=output,
        parsed=output,
        score=score,
        reason="",
        reference=[sample["target"] for sample in samples],
        details={},
        finish_reason="length" if any(answer.finish_reason == "length" for answer in own) else "stop",
        image_id=own[0].image_id if own else "",
    )


def _score(task: PaperTask, entries: Sequence[Entry]) -> float | None:
    """What a question's answer was worth, from 0 to 1; None when lmms-eval does not say."""
    if task.name in _BY_OWN_FUNCTION:
        return float(_lmms_eval(*_BY_OWN_FUNCTION[task.name], list(entries)))
    if task.name.startswith("mmbench"):
        return _circular(entries)
    [entry] = entries
    if isinstance(entry, int | float):
        return float(entry)
    if "scores" in entry:  # LLaVA-Bench: the judge's marks for GPT-4's answer and the model's, from 1 to 10
        mark = entry["scores"][1]
        return mark / 10 if mark >= 0 else None
    return next((float(entry[name]) for name in _NUMBERS if name in entry), None)


# Their aggregation of one question is its score.
_BY_OWN_FUNCTION = {
    "seedbench": ("seedbench.utils", "seed_aggregation_result"),
    "mmerealworld": ("mme_realworld.utils", "mme_realworld_aggregate_results"),
    "mmmu_val_group_img": ("mmmu.utils_group_img", "mmmu_aggregate_results"),
}


def _circular(entries: Sequence[Entry]) -> float:
    """Whether a question was answered rightly in every rotation; letters are read by rules alone."""
    evaluator = _lmms_eval("mmbench.mmbench_evals", "MMBench_Evaluator")
    table = importlib.import_module("pandas").DataFrame(list(entries)).sort_values(by="index")
    answers = dict(zip(table["index"], table["answer"], strict=True))
    return float(evaluator.eval_sub_data(table, answers, static_only=True))


def _lmms_eval(module: str, name: str, *arguments: Any) -> Any:
    """Call a function of lmms-eval's tasks, which prints and logs a table each time."""
    function = getattr(importlib.import_module(f"lmms_eval.tasks.{module}"), name)
    importlib.import_module("loguru").logger.disable("lmms_eval")
    with redirect_stdout(io.StringIO()):
        return function(*arguments)
