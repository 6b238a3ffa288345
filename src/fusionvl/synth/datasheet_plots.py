"""Draws the plots of a datasheet: rows of each kind, lengths, answers. Needs matplotlib."""

from pathlib import Path
from typing import Any

import numpy as np

from fusionvl.data.extras import import_extra
from fusionvl.synth.run_statistics import LENGTH_EDGES, RunStatistics

_COLUMNS = 4
_TOP = 10


def draw_kinds(path: Path, counted: RunStatistics) -> None:
    """Rows of each kind: kept, dropped, rejected and errors, as stacked bars."""
    kinds = counted.kinds
    figure = _figure(8, 0.35 * len(kinds) + 1.5)
    axes = figure.add_subplot()
    parts = {
        "kept": [counted.chosen[kind] for kind in kinds],
        "dropped": [counted.rows[kind, "ok"] - counted.chosen[kind] for kind in kinds],
        "rejected": [counted.rows[kind, "rejected"] for kind in kinds],
        "error": [counted.rows[kind, "error"] for kind in kinds],
    }
    left = np.zeros(len(kinds))
    for name, numbers in parts.items():
        axes.barh(kinds, numbers, left=left, label=name)
        left += np.array(numbers)
    axes.invert_yaxis()
    axes.set_xlabel("rows")
    axes.legend()
    figure.savefig(path, dpi=110)


def draw_lengths(path: Path, counted: RunStatistics) -> None:
    """How long questions and answers are."""
    figure = _figure(8, 4)
    axes = figure.add_subplot()
    for name, bars in counted.bars.items():
        axes.stairs(bars, LENGTH_EDGES, label=f"{name}s")
    axes.set(xscale="log", xlabel="characters", ylabel="turns")
    axes.legend()
    figure.savefig(path, dpi=110)


def draw_answers(path: Path, counted: RunStatistics) -> None:
    """The most frequent short answers of each kind."""
    shown = {kind: own for kind, own in counted.answers.items() if own}
    lines = max(1, -(-len(shown) // _COLUMNS))
    figure = _figure(12, 2.4 * lines)
    for number, (kind, own) in enumerate(shown.items(), start=1):
        axes = figure.add_subplot(lines, _COLUMNS, number)
        names, counts = zip(*own.most_common(_TOP), strict=True)
        axes.barh([name[:18].replace("$", r"\$") for name in names], counts)  # dollar signs begin formulas
        axes.invert_yaxis()
        axes.set_title(kind, fontsize=9)
        axes.tick_params(labelsize=7)
    figure.savefig(path, dpi=110)


def _figure(width: float, height: float) -> Any:
    figures = import_extra("matplotlib.figure", extra="synth", needed_for="the plots of a datasheet")
    return figures.Figure(figsize=(width, height), layout="constrained")
