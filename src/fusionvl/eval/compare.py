"""Whether one model's scores differ from another's, question by question. Knows scores; knows no models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from fusionvl.eval.score_store import SAMPLES, ScoredTask, by_task, read_answers, scored_tasks, scores_of
from fusionvl.eval.statistics import Interval, interval_of_mean, mcnemar
from fusionvl.eval.task import ScoredAnswer
from fusionvl.text_table import Table

_Answers = Mapping[str, ScoredAnswer]


@dataclass(frozen=True)
class TaskComparison:
    """Two models on the questions of one test that both answered and that have a score.

    Attributes:
        title: The test's.
        questions: How many they share.
        first: Mean score of the first, in percent.
        second: Mean score of the second, in percent.
        difference: Second minus first.
        interval: 95 % paired bootstrap interval of the difference, by image; None where draws do not vary.
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
        notes: What was left out.
    """

    first: str
    second: str
    tasks: Sequence[TaskComparison]
    notes: Sequence[str]

    def table(self) -> Table:
        """A row for each test."""
        header = ["task", "questions", "A", "B", "B - A", "95 % interval", "only A right", "only B right", "p"]
        notes = [*self.notes, *(f"{task.title}: {note}" for task in self.tasks for note in task.notes)]
        title = f"A: {self.first}; B: {self.second}. Mean score per question, in percent"
        return Table(title, header, [_row(task) for task in self.tasks], notes)


def compare(first: Path, second: Path) -> Comparison:
    """Compare the scores in two folders, each of one test or with several tests in it.

    Raises:
        ValueError: When they have no test in common, a test stands twice in one, or its questions are others.
    """
    a, b = (by_task(scored_tasks(folder)[0]) for folder in (first, second))
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
    compared = {name: _compare_task(a[name], b[name]) for name in common}
    notes += [text for text in compared.values() if isinstance(text, str)]
    tasks = [task for task in compared.values() if isinstance(task, TaskComparison)]
    if not tasks:
        raise ValueError(f"{first} and {second} cannot be compared: {'; '.join(notes)}")
    return Comparison(str(first), str(second), tasks, notes)


def _compare_task(first: ScoredTask, second: ScoredTask) -> TaskComparison | str:
    """The comparison, or why there is none: some of lmms-eval's benchmarks score no single questions."""
    all_a, all_b = read_answers(first.folder / SAMPLES), read_answers(second.folder / SAMPLES)
    shared = [name for name in all_a if name in all_b]
    where = f"{first.folder} and {second.folder}"
    if not shared:
        raise ValueError(f"{where} have no question in common ({len(all_a)} and {len(all_b)} questions)")
    others = sum(all_a[name].reference != all_b[name].reference for name in shared)
    if others:
        raise ValueError(f"{where}: {others} of {len(shared)} questions have another reference answer; data differ")
    kept = [name for name in shared if all_a[name].score is not None and all_b[name].score is not None]
    if not kept:
        return f"{first.results.title}: none of {len(shared)} questions has a score of its own in both"
    a, b = scores_of(all_a[name] for name in kept), scores_of(all_b[name] for name in kept)
    only_first, only_second, p_value = _test(a, b)
    return TaskComparison(
        title=first.results.title,
        questions=len(kept),
        first=100 * fmean(a),
        second=100 * fmean(b),
        difference=100 * fmean(b) - 100 * fmean(a),
        interval=interval_of_mean([y - x for x, y in zip(a, b, strict=True)], [all_a[name].image_id for name in kept]),
        only_first=only_first,
        only_second=only_second,
        p_value=p_value,
        notes=_left_out(all_a, all_b, shared, kept),
    )


def _test(a: Sequence[float], b: Sequence[float]) -> tuple[int | None, int | None, float | None]:
    if {*a, *b} - {0, 1}:
        return None, None, None
    pairs = list(zip(a, b, strict=True))
    only_first, only_second = pairs.count((1, 0)), pairs.count((0, 1))
    return only_first, only_second, mcnemar(only_first, only_second)


def _left_out(a: _Answers, b: _Answers, shared: Sequence[str], kept: Sequence[str]) -> list[str]:
    counts = {
        "questions only A was asked, left out": len(a) - len(shared),
        "questions only B was asked, left out": len(b) - len(shared),
        "questions without a judgement in one of them, left out": len(shared) - len(kept),
        "questions were worded differently": sum(a[name].prompt != b[name].prompt for name in kept),
    }
    return [f"{count} {what}" for what, count in counts.items() if count]


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
