"""Scores of one or more models beside the paper's rows. Knows results and the paper's table; knows no answers."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionvl.eval.paper_table import COLUMNS, PAPER_ROWS
from fusionvl.eval.score_store import Results, ScoredTask, by_task, scored_tasks
from fusionvl.text_table import Table

_Models = Mapping[str, Mapping[str, ScoredTask]]


@dataclass(frozen=True)
class Line:
    """One number of a test in the report.

    Attributes:
        label: For people.
        best: The most that can be reached.
        measured: Results by model, where there are any.
        metric: Which number of the results this is.
        paper: What the paper reports, by model; empty when it does not have the test.
    """

    label: str
    best: float
    measured: dict[str, Results]
    metric: str
    paper: dict[str, float | None]

    def value(self, model: str) -> float | None:
        """A measured model's score; None when it has none."""
        return self.measured[model].metrics.get(self.metric) if model in self.measured else None

    def cell(self, model: str) -> str:
        """A measured model's score with its interval, and a mark when not the whole test was asked."""
        value = self.value(model)
        if value is None:
            return _number(None)
        results = self.measured[model]
        low_high = results.intervals.get(self.metric)
        interval = f" [{_number(low_high[0])}, {_number(low_high[1])}]" if low_high else ""
        return _number(value) + interval + " *" * bool(results.not_asked)


@dataclass(frozen=True)
class Report:
    """All tests that were measured.

    Attributes:
        models: Labels of the measured models.
        lines: The tests, the paper's first, in its order.
        notes: What a reader must know: questions left out, answers not understood, tests not finished.
    """

    models: Sequence[str]
    lines: Sequence[Line]
    notes: Sequence[str]

    def table(self) -> Table:
        """Tests as rows; measured models, then the paper's, as columns."""
        paper = list(PAPER_ROWS) if any(line.paper for line in self.lines) else []
        rows = [
            [line.label, *map(line.cell, self.models), *(_number(line.paper.get(model)) for model in paper)]
            for line in self.lines
        ]
        title = "Scores, with 95 % bootstrap intervals" + ("; the paper's rows beside them" if paper else "")
        return Table(title, ["benchmark", *self.models, *paper], rows, self.notes)


def make_report(folders: Iterable[Path]) -> Report:
    """Read the scores in some folders.

    Args:
        folders: Each of one test's scores, or with several such folders in it.

    Raises:
        ValueError: When a folder holds no scores, or a model has several scores of one test.
    """
    scored: dict[Path, ScoredTask] = {}
    unfinished: list[Path] = []
    for folder in folders:
        found, not_finished = scored_tasks(folder)
        scored |= {one.folder.resolve(): one for one in found}
        unfinished += not_finished
    models = _by_model(scored.values())
    notes = [note for model, tasks in models.items() for note in _notes(model, tasks)]
    notes += [f"Not finished, and not in the table: {path}" for path in unfinished]
    return Report(list(models), list(_lines(models)), notes)


def _by_model(scored: Iterable[ScoredTask]) -> _Models:
    """Scores by model and test; models of one name that were asked differently are told apart by how."""
    models: dict[tuple[str, str], list[ScoredTask]] = {}
    for one in scored:
        models.setdefault((one.model, json.dumps(one.how, sort_keys=True)), []).append(one)
    table = {}
    for (name, _), own in models.items():
        namesakes = [others[0].how for (other, _), others in models.items() if other == name]
        table[_label(name, own[0].how, namesakes)] = by_task(own)
    return table


def _label(name: str, own: dict[str, Any], namesakes: Sequence[dict[str, Any]]) -> str:
    differing = [key for key, value in own.items() if any(other.get(key) != value for other in namesakes)]
    return ", ".join([name, *(f"{key} {str(own[key])[:8]}" for key in differing)])


def _lines(models: _Models) -> Iterable[Line]:
    measured: dict[str, dict[str, Results]] = {}
    for model, tasks in models.items():
        for name, one in tasks.items():
            measured.setdefault(name, {})[model] = one.results
    for task, metric in COLUMNS:
        if task.name in measured:
            paper = {model: row[metric.column] for model, row in PAPER_ROWS.items()}
            yield Line(metric.title or task.title, metric.best, measured[task.name], metric.column, paper)
    for name in sorted(measured.keys() - {task.name for task, _ in COLUMNS}):
        any_results = next(iter(measured[name].values()))
        yield Line(any_results.title, 100.0, measured[name], next(iter(any_results.metrics)), {})


def _notes(model: str, tasks: Mapping[str, ScoredTask]) -> Iterable[str]:
    for one in tasks.values():
        if one.results.trouble:
            mark = "* " * bool(one.results.not_asked)
            yield f"{mark}{one.results.title}, {model}: {'; '.join(one.results.trouble)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
