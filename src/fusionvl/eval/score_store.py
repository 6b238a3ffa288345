"""The one place where scores lie, whoever asked the questions: a folder for each test of each model.

    FOLDER/run.json        what the scores depend on (see `run_folder.py`); `task` is among its settings
    FOLDER/samples.jsonl   one `ScoredAnswer` a line
    FOLDER/results.json    `Results`; written last

Knows answers and numbers; knows no models and no scorers.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fusionvl.eval.statistics import Interval, interval_of_mean
from fusionvl.eval.task import ScoredAnswer
from fusionvl.run_folder import RECORD, read_record, read_rows, write_rows, write_whole

SAMPLES, RESULTS = "samples.jsonl", "results.json"
PACKAGES = ("fusionvl", "torch", "transformers", "tokenizers", "pillow", "numpy", "lmms-eval")
_OF_THE_TASK = ("task", "lmms_eval", "max_new_tokens", "limit", "judge")


@dataclass(frozen=True)
class Results:
    """The scores of one test.

    Attributes:
        task: Its name.
        title: For people.
        metrics: What is reported, by name; the first is the headline.
        intervals: 95 % bootstrap intervals by image, of the metrics that are means of the questions' scores.
        questions: Questions asked.
        not_asked: Questions that the test has besides.
        images: Different images among those asked.
        counts: What went wrong, in words, and how often.
        notes: What else a reader of the scores must know.
    """

    task: str
    title: str
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    questions: int
    not_asked: int
    images: int
    counts: dict[str, int]
    notes: list[str]

    @property
    def trouble(self) -> list[str]:
        """What to hold against the scores, with counts; empty when there is nothing."""
        asked = f"{self.questions} of {self.questions + self.not_asked} questions"
        return [asked] * bool(self.not_asked) + [f"{count} {what}" for what, count in self.counts.items()] + self.notes


def write_scores(
    folder: Path,
    answers: Sequence[ScoredAnswer],
    metrics: Mapping[str, tuple[float, Sequence[ScoredAnswer]]],
    *,
    task: str,
    title: str,
    not_asked: int = 0,
    notes: Sequence[str] = (),
) -> Results:
    """Write a folder's samples and results.

    Args:
        folder: Claimed before.
        answers: One for each question asked.
        metrics: By name, each with the answers it is the mean of; with none where it is something else.
        task: See `Results`, as are the others.
        title: Of the test.
        not_asked: Questions that the test has besides.
        notes: What a reader must know.

    Raises:
        CannotWriteError: When the disk is full.
    """
    intervals = {
        name: interval_of_mean(scores_of(own), [answer.image_id for answer in own])
        for name, (_, own) in metrics.items()
        if own
    }
    counts = {
        "answers not understood, scored 0": sum(answer.parsed is None for answer in answers),
        "answers without a word": sum(not answer.output.strip() for answer in answers),
        "answers cut off": sum(answer.finish_reason == "length" for answer in answers),
    }
    results = Results(
        task=task,
        title=title,
        metrics={name: value for name, (value, _) in metrics.items()},
        intervals={name: interval for name, interval in intervals.items() if interval is not None},
        questions=len(answers),
        not_asked=not_asked,
        images=len({answer.image_id or answer.id for answer in answers}),
        counts={what: count for what, count in counts.items() if count},
        notes=list(notes),
    )
    write_rows(folder / SAMPLES, map(asdict, answers))
    write_whole(folder / RESULTS, json.dumps(asdict(results), indent=2, ensure_ascii=False) + "\n")
    return results


def scores_of(answers: Iterable[ScoredAnswer]) -> list[float]:
    """The scores, without those of answers that have none."""
    return [answer.score for answer in answers if answer.score is not None]


def read_answers(path: Path) -> dict[str, ScoredAnswer]:
    """All answers of a file, by id, in their order; none where there is no file.

    Raises:
        ValueError: For a line that is no scored answer, or an id that comes again.
    """
    found: dict[str, ScoredAnswer] = {}

    def make(values: dict[str, Any]) -> ScoredAnswer:
        answer = ScoredAnswer(**values)
        if answer.id in found:
            raise ValueError(f"{answer.id} was scored before")
        found[answer.id] = answer
        return answer

    for _ in read_rows(path, make):
        pass
    return found


def read_results(folder: Path) -> Results:
    """Read a folder's `results.json`.

    Raises:
        ValueError: When there is none, or it is not of this version.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise ValueError(f"{folder} has no {RESULTS}: its test is not finished; start the same command again")
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        intervals = {name: (low, high) for name, (low, high) in values.pop("intervals").items()}
        return Results(**values, intervals=intervals)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not what this version writes ({error}): start the same command again") from error


@dataclass(frozen=True)
class ScoredTask:
    """One model's scores on one test.

    Attributes:
        folder: Where they lie.
        model: The model's name.
        how: How it was asked: weights, dtype, latent tokens.
        results: What they add up to.
    """

    folder: Path
    model: str
    how: dict[str, Any]
    results: Results


def scored_tasks(folder: Path) -> tuple[list[ScoredTask], list[Path]]:
    """The tests scored in a folder or below it, and the folders of those that are not finished.

    Raises:
        ValueError: When there are none.
    """
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}")
    found, unfinished = [], []
    for path in sorted(folder.rglob(RECORD)):
        own, record = path.parent, read_record(path.parent)
        if "task" not in record["settings"]:
            continue  # a run of something else, training for instance
        if not (own / RESULTS).is_file():
            unfinished.append(own)
            continue
        how = {name: value for name, value in record["settings"].items() if name not in _OF_THE_TASK}
        found.append(ScoredTask(own, record.get("model", own.name), how, read_results(own)))
    if not found:
        some = f"; {len(unfinished)} are not finished, start their command again" if unfinished else ""
        raise ValueError(f"{folder} holds no finished scores of `fusionvl eval`{some}")
    return found, unfinished


def by_task(scored: Iterable[ScoredTask]) -> dict[str, ScoredTask]:
    """One model's scores by test.

    Raises:
        ValueError: When a test was scored twice.
    """
    tasks: dict[str, ScoredTask] = {}
    for one in scored:
        other = tasks.setdefault(one.results.task, one)
        if other is not one:
            raise ValueError(
                f"{one.model} was scored on {one.results.task} twice: give {one.folder} or {other.folder}"
            )
    return tasks
