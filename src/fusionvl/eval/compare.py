"""Whether one model's scores differ from another's, question by question. Knows samples and results, no models."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fusionvl.eval.run_folders import ScoredTask, scored_tasks
from fusionvl.eval.sample_file import SAMPLES, read_samples
from fusionvl.eval.statistics import Interval, mcnemar, paired_difference
from fusionvl.eval.tables import Table
from fusionvl.eval.task import Sample


@dataclass(frozen=True)
class TaskComparison:
    """Two models on the questions of one task that both answered and that have a score.

    Attributes:
        title: The task's.
        questions: How many they share.
        first: Mean score of the first, in percent.
        second: Mean score of the second, in percent.
        difference: Second minus first.
        interval: 95 % paired bootstrap interval of the difference, by image; None where draws
            do not vary.
        only_first: Questions only the first got right; None where scores are not just right or wrong.
        only_second: Questions only the second got right.
        p_value: Of McNemar's exact test; None where scores are not just right or wrong.
        notes: Questions left out, with counts.
    """

    title: str
    questions: int
    first: float
    second: float
    difference: float
    interval: Interval | None
    only_first: int | None
    only_second: int | None
    p_value: float | None
    notes: Sequence[str]


@dataclass(frozen=True)
class Comparison:
    """Two folders of scores.

    Attributes:
        first: Name of the first.
        second: Name of the second.
        tasks: Those both have.
        notes: Tasks left out.
    """

    first: str
    second: str
    tasks: Sequence[TaskComparison]
    notes: Sequence[str]

    def table(self) -> Table:
        """A row for each task."""
        header = ["task", "questions", "A", "B", "B - A", "95 % interval", "only A right", "only B right", "p"]
        notes = [*self.notes, *(f"{task.title}: {note}" for task in self.tasks for note in task.notes)]
        title = f"A: {self.first}; B: {self.second}. Mean score per question, in percent"
        return Table(title, header, [_row(task) for task in self.tasks], notes)


def compare(first: Path, second: Path) -> Comparison:
    """Compare the scores in two folders, each of one task or with several tasks in it.

    Raises:
        ValueError: When they have no task in common, a task stands twice in one, or its questions are others.
    """
    a, b = _tasks(first), _tasks(second)
    common = [name for name in a if name in b]
    if not common:
        names = " and ".join(", ".join(side) for side in (a, b))
        raise ValueError(f"{first} and {second} have no task in common: they hold {names}")
    notes = [
        f"Only in {folder}, and left out: {name}"
        for folder, own, other in ((first, a, b), (second, b, a))
        for name in own
        if name not in other
    ]
    tasks = [_compare_task(a[name], b[name]) for name in common]
    return Comparison(str(first), str(second), tasks, notes)


def _tasks(folder: Path) -> dict[str, ScoredTask]:
    tasks: dict[str, ScoredTask] = {}
    for one in scored_tasks(folder)[0]:
        if one.results.task in tasks:
            other = tasks[one.results.task].folder
            raise ValueError(f"{folder} holds {one.results.task} twice: give {other} or {one.folder}")
        tasks[one.results.task] = one
    return tasks


def _compare_task(first: ScoredTask, second: ScoredTask) -> TaskComparison:
    all_a, all_b = read_samples(first.folder / SAMPLES), read_samples(second.folder / SAMPLES)
    shared = [name for name in all_a if name in all_b]
    where = f"{first.folder} and {second.folder}"
    if not shared:
        raise ValueError(f"{where} have no question in common ({len(all_a)} and {len(all_b)} questions)")
    others = sum(all_a[name].reference != all_b[name].reference for name in shared)
    if others:
        raise ValueError(f"{where}: {others} of {len(shared)} questions have another reference answer; data differ")
    kept = [name for name in shared if all_a[name].score is not None and all_b[name].score is not None]
    if not kept:
        raise ValueError(f"{where}: none of {len(shared)} questions has a score in both; start their commands again")
    a, b = ({name: side[name] for name in kept} for side in (all_a, all_b))
    difference, interval = paired_difference(a, b)
    only_first, only_second, p_value = _test(a, b)
    reworded = sum(a[name].prompt != b[name].prompt for name in kept)
    counts = {
        "questions only A was asked, left out": len(all_a) - len(shared),
        "questions only B was asked, left out": len(all_b) - len(shared),
        "questions without a judgement in one of them, left out": len(shared) - len(kept),
        "questions were worded differently": reworded,
    }
    return TaskComparison(
        title=first.results.title,
        questions=len(kept),
        first=_mean(a),
        second=_mean(b),
        difference=difference,
        interval=interval,
        only_first=only_first,
        only_second=only_second,
        p_value=p_value,
        notes=[f"{count} {what}" for what, count in counts.items() if count],
    )


def _test(a: dict[str, Sample], b: dict[str, Sample]) -> tuple[int | None, int | None, float | None]:
    if any(sample.score not in (0, 1) for side in (a, b) for sample in side.values()):
        return None, None, None
    only_first = sum(a[name].score == 1 and b[name].score == 0 for name in a)
    only_second = sum(a[name].score == 0 and b[name].score == 1 for name in a)
    return only_first, only_second, mcnemar(only_first, only_second)


def _mean(samples: dict[str, Sample]) -> float:
    return 100 * sum(sample.score or 0.0 for sample in samples.values()) / len(samples)


def _row(task: TaskComparison) -> list[str]:
    interval = "-" if task.interval is None else f"[{task.interval[0]:+.2f}, {task.interval[1]:+.2f}]"
    counts = ["-" if count is None else str(count) for count in (task.only_first, task.only_second)]
    return [
        task.title,
        str(task.questions),
        f"{task.first:.2f}",
        f"{task.second:.2f}",
        f"{task.difference:+.2f}",
        interval,
        *counts,
        "-" if task.p_value is None else f"{task.p_value:.2g}",
    ]
