"""`results.json`: what a task's samples add up to, and how sure that is.

Knows samples and tasks; knows no models.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fusionvl.eval.sample_file import replace_file
from fusionvl.eval.statistics import Interval, bootstrap_intervals
from fusionvl.eval.task import Sample, Task

RESULTS = "results.json"


@dataclass(frozen=True)
class Results:
    """The scores of one task.

    Attributes:
        task: Its name.
        title: For people.
        metrics: As the task summarises its samples; empty when no sample has a score.
        headline: The metric that is compared.
        intervals: 95 % bootstrap intervals of metrics, by image; see `bootstrap_intervals`.
        questions: Questions asked.
        questions_of_task: Questions the task has.
        images: Different images among those asked.
        unparsed: Answers in which nothing was recognised; they score 0.
        empty: Answers without a word; they score 0.
        cut: Answers that ran out of new tokens.
        judge_failed: Samples without a score, as the judge failed; they are in no metric.
    """

    task: str
    title: str
    metrics: dict[str, float]
    headline: str
    intervals: dict[str, Interval]
    questions: int
    questions_of_task: int
    images: int
    unparsed: int
    empty: int
    cut: int
    judge_failed: int

    @property
    def value(self) -> float | None:
        """The headline's value; None when no sample has a score."""
        return self.metrics.get(self.headline)

    @property
    def is_complete(self) -> bool:
        """Whether every question of the task was asked and has a score."""
        return self.questions == self.questions_of_task and not self.judge_failed

    def write(self, folder: Path) -> None:
        """Write the folder's `results.json`."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        replace_file(folder / RESULTS, text.encode())


def read_results(folder: Path) -> Results:
    """Read a folder's `results.json`.

    Raises:
        ValueError: When there is none, or it is not of this version.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise ValueError(f"{folder} has no {RESULTS}: its task is not finished; start the same command again")
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        intervals = {name: (low, high) for name, (low, high) in values.pop("intervals").items()}
        return Results(**values, intervals=intervals)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not what this version writes ({error}): start the same command again") from error


def sum_up(
    task: Task,
    samples: Sequence[Sample],
    questions_of_task: int,
    progress: Callable[[Sequence[int]], Sequence[int]] = lambda draws: draws,
) -> Results:
    """Add up all samples of a task.

    Args:
        task: Summarises those with a score.
        samples: One for each question asked.
        questions_of_task: Questions the task has.
        progress: Wraps the bootstrap's draws, to show how far they are.
    """
    scored = [sample for sample in samples if sample.score is not None]
    return Results(
        task=task.name,
        title=task.title,
        metrics=task.summarise(scored) if scored else {},
        headline=task.headline,
        intervals=bootstrap_intervals(task, scored, progress) if scored else {},
        questions=len(samples),
        questions_of_task=questions_of_task,
        images=len({sample.image_id for sample in samples}),
        unparsed=sum(sample.parsed is None for sample in scored),
        empty=sum(not sample.output.strip() for sample in samples),
        cut=sum(sample.finish_reason == "length" for sample in samples),
        judge_failed=len(samples) - len(scored),
    )
