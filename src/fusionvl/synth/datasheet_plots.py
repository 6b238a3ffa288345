"""Draws what a datasheet shows: counts, lengths and answers as plots, and a sheet of examples.

Needs matplotlib. Knows rows, not why they are there.
"""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fusionvl.data.extras import import_extra
from fusionvl.synth.rows import Row

_COLUMNS = 4
_TOP = 10
_LINES = 9  # of a conversation, below its image


def draw_kinds(path: Path, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Rows of each kind: kept, dropped, rejected and errors, as stacked bars."""
    figure = _figure(8, 0.35 * len(counts) + 1.5)
    axes = figure.add_subplot()
    left = np.zeros(len(counts))
    parts = {
        "kept": [own["kept"] for own in counts.values()],
        "dropped": [own["ok"] - own["kept"] for own in counts.values()],
        "rejected": [own["rejected"] for own in counts.values()],
        "error": [own["error"] for own in counts.values()],
    }
    for name, numbers in parts.items():
        axes.barh(list(counts), numbers, left=left, label=name)
        left += np.array(numbers)
    axes.invert_yaxis()
    axes.set_xlabel("rows")
    axes.legend()
    figure.savefig(path, dpi=110)


def draw_lengths(path: Path, rows: Sequence[Row]) -> None:
    """How long questions and answers are."""
    figure = _figure(8, 4)
    axes = figure.add_subplot()
    edges = np.geomspace(1, 10_000, 41)
    for name in ("question", "answer"):
        lengths = [len(getattr(turn, name)) for row in rows for turn in row.turns]
        axes.hist(lengths, bins=edges.tolist(), histtype="step", label=f"{name}s")
    axes.set(xscale="log", xlabel="characters", ylabel="turns")
    axes.legend()
    figure.savefig(path, dpi=110)


def draw_answers(path: Path, answers: Mapping[str, Counter[str]]) -> None:
    """The most frequent short answers of each kind."""
    shown = {kind: own for kind, own in answers.items() if own}
    lines = max(1, -(-len(shown) // _COLUMNS))
    figure = _figure(12, 2.4 * lines)
    for number, (kind, own) in enumerate(shown.items(), start=1):
        axes = figure.add_subplot(lines, _COLUMNS, number)
        names, counts = zip(*own.most_common(_TOP), strict=True)
        axes.barh([_plain(name[:18]) for name in names], counts)
        axes.invert_yaxis()
        axes.set_title(kind, fontsize=9)
        axes.tick_params(labelsize=7)
    figure.savefig(path, dpi=110)


def draw_examples(path: Path, rows: Sequence[Row], folder: Path) -> None:
    """Images with their first questions and answers."""
    lines = max(1, -(-len(rows) // _COLUMNS))
    figure = _figure(3.2 * _COLUMNS, 4.4 * lines, layout="none")
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.06 / lines, bottom=0.26 / lines, wspace=0.04, hspace=0.42)
    for number, row in enumerate(rows, start=1):
        axes = figure.add_subplot(lines, _COLUMNS, number)
        axes.set_axis_off()
        axes.set_title(row.kind, fontsize=8)
        axes.text(0, -0.03, _plain(_conversation(row)), transform=axes.transAxes, fontsize=6, verticalalignment="top")
        try:
            with Image.open(folder / str(row.image)) as image:
                axes.imshow(np.asarray(image.convert("RGB")))
        except OSError as error:
            axes.text(0.5, 0.5, textwrap.fill(str(error), 30), fontsize=6, horizontalalignment="center")
    figure.savefig(path, dpi=110)


def _conversation(row: Row) -> str:
    said = [text for turn in row.turns for text in (f"Q: {turn.question}", f"A: {turn.answer}")]
    lines = [line for text in said for line in textwrap.wrap(text, 58)]
    return "\n".join(lines if len(lines) <= _LINES else [*lines[: _LINES - 1], "..."])


def _plain(text: str) -> str:
    """Dollar signs begin formulas in matplotlib."""
    return text.replace("$", r"\$")


def _figure(width: float, height: float, layout: str = "constrained") -> Any:
    figures = import_extra("matplotlib.figure", extra="synth", needed_for="the plots of a datasheet")
    return figures.Figure(figsize=(width, height), layout=layout)
