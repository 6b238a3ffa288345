"""Scores of one or more models beside the paper's rows. Knows results and the paper's table; knows no samples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fusionvl.eval.paper_table import COLUMNS, PAPER_ROWS, Column
from fusionvl.eval.results import Results
from fusionvl.eval.run_folders import ScoredTask, by_model, scored_tasks
from fusionvl.eval.tables import Table

_NOTHING = "-"


@dataclass(frozen=True)
class Line:
    """One benchmark in the report.

    Attributes:
        label: Of the benchmark.
        best: The most that can be reached.
        measured: Results by model, where there are any.
        metric: Which number of the results this is.
        paper: What the paper reports, by model; empty when it does not have the benchmark.
    """

    label: str
    best: float
    measured: dict[str, Results]
    metric: str
    paper: dict[str, float | None]

    def value(self, model: str) -> float | None:
        """A measured model's score; None when it has none."""
        results = self.measured.get(model)
        return None if results is None else results.metrics.get(self.metric)


@dataclass(frozen=True)
class Report:
    """All benchmarks that were measured.

    Attributes:
        models: Labels of the measured models.
        lines: The benchmarks, the paper's first, in its order.
        notes: What a reader must know: questions left out, answers not understood, tasks not finished.
    """

    models: Sequence[str]
    lines: Sequence[Line]
    notes: Sequence[str]

    def table(self) -> Table:
        """Benchmarks as rows; measured models, then the paper's, as columns."""
        paper = list(PAPER_ROWS) if any(line.paper for line in self.lines) else []
        rows = [
            [
                line.label,
                *(_measured(line, model) for model in self.models),
                *(_number(line.paper.get(model)) for model in paper),
            ]
            for line in self.lines
        ]
        header = ["benchmark", *self.models, *paper]
        title = "Scores, with 95 % bootstrap intervals" + ("; the paper's rows beside them" if paper else "")
        return Table(title, header, rows, self.notes)


def make_report(folders: Iterable[Path]) -> Report:
    """Read the scores in some folders.

    Args:
        folders: Each of one task's scores, or with several such folders in it.

    Raises:
        ValueError: When a folder holds no scores, or a model has several scores of one task.
    """
    scored: list[ScoredTask] = []
    notes: list[str] = []
    for folder in folders:
        found, unfinished = scored_tasks(folder)
        scored += [one for one in found if one.folder not in {other.folder for other in scored}]
        notes += [f"Not finished, and not in the table: {path}" for path in unfinished]
    models = by_model(scored)
    notes = [note for model, tasks in models.items() for note in _notes(model, tasks)] + notes
    return Report(list(models), list(_lines(models)), notes)


def _lines(models: dict[str, dict[str, ScoredTask]]) -> Iterable[Line]:
    measured: dict[str, dict[str, Results]] = {}
    for model, tasks in models.items():
        for name, one in tasks.items():
            measured.setdefault(name, {})[model] = one.results
    for column in COLUMNS:
        if column.task in measured:
            yield _paper_line(column, measured[column.task])
    of_paper = {column.task for column in COLUMNS}
    for name, own in measured.items():
        if name not in of_paper:
            any_results = next(iter(own.values()))
            yield Line(any_results.title, 100.0, own, any_results.headline, {})


def _paper_line(column: Column, measured: dict[str, Results]) -> Line:
    paper = {model: row[column.label] for model, row in PAPER_ROWS.items()}
    return Line(column.benchmark, column.best, measured, column.metric, paper)


def _measured(line: Line, model: str) -> str:
    value = line.value(model)
    if value is None:
        return _NOTHING
    results = line.measured[model]
    text = _number(value)
    if line.metric in results.intervals:
        low, high = results.intervals[line.metric]
        text += f" [{_number(low)}, {_number(high)}]"
    return text if results.is_complete else f"{text} *"


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.1f}"


def _notes(model: str, tasks: dict[str, ScoredTask]) -> Iterable[str]:
    for one in tasks.values():
        told = trouble(one.results)
        if told:
            mark = "" if one.results.is_complete else "* "
            yield f"{mark}{one.results.title}, {model}: {'; '.join(told)}"


def trouble(results: Results) -> list[str]:
    """What keeps a score from being the benchmark's own, with counts; empty when nothing does."""
    counts = {
        "answers not understood, scored 0": results.unparsed,
        "answers without a word": results.empty,
        "answers cut off": results.cut,
        "not judged and left out": results.judge_failed,
    }
    told = [f"{count} {what}" for what, count in counts.items() if count]
    if results.questions != results.questions_of_task:
        told.insert(0, f"{results.questions} of {results.questions_of_task} questions")
    return told
