"""Pictures of reports and comparisons. Needs matplotlib; knows no files of results.

Every axis of a radar plot begins at 0 and ends at the best score there is, so that no difference looks larger than it
is; the areas say nothing.
"""

import io
import math
from pathlib import Path
from typing import Any

from fusionvl.data.extras import import_extra
from fusionvl.eval.compare import Comparison
from fusionvl.eval.report import Report
from fusionvl.run_folder import write_whole

_FEWEST_AXES = 3
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_PAPER_MODELS = {"FUSION 3B": "--", "FUSION 8B": ":"}


def radar(report: Report, path: Path) -> None:
    """Draw a report's scores as shares of the best possible, with the paper's FUSION beside them.

    Raises:
        ValueError: When fewer than three benchmarks were measured.
        ModuleNotFoundError: When matplotlib is not installed; says how to install it.
    """
    lines = report.lines
    if len(lines) < _FEWEST_AXES:
        raise ValueError(f"a radar plot needs at least {_FEWEST_AXES} benchmarks, there are {len(lines)}")
    figure, axes = _figure(8, 8, projection="polar")
    angles = [2 * math.pi * place / len(lines) for place in range(len(lines))]

    def draw(label: str, values: list[float | None], **style: Any) -> None:
        # Without a score there is no point, and no line to it.
        shares = [
            math.nan if value is None else 100 * value / line.best for value, line in zip(values, lines, strict=True)
        ]
        axes.plot([*angles, angles[0]], [*shares, shares[0]], label=label, **style)

    for place, model in enumerate(report.models):
        values = [line.value(model) for line in lines]
        draw(model, values, color=_COLOURS[place % len(_COLOURS)], marker="o", linewidth=2)
    for model, dashes in _PAPER_MODELS.items():
        if any(line.paper.get(model) is not None for line in lines):
            draw(f"{model}, paper", [line.paper.get(model) for line in lines], color="grey", linestyle=dashes)
    axes.set_xticks(angles, [line.label for line in lines])
    axes.tick_params(axis="x", pad=18)
    axes.set_ylim(0, 100)
    axes.set_yticks([20, 40, 60, 80, 100], ["20", "40", "60", "80", "100 %"])
    axes.set_title("Share of the best possible score", pad=30)
    axes.legend(loc="upper left", bbox_to_anchor=(-0.1, -0.05), ncols=2, frameon=False)
    _save(figure, path)


def differences(comparison: Comparison, path: Path) -> None:
    """Draw each task's difference with its interval; what crosses zero may be chance.

    Raises:
        ModuleNotFoundError: When matplotlib is not installed; says how to install it.
    """
    tasks = list(reversed(comparison.tasks))
    figure, axes = _figure(8, 1.6 + 0.5 * len(tasks))
    for place, task in enumerate(tasks):
        axes.plot(task.difference, place, "o", color=_COLOURS[0])
        if task.interval is not None:
            axes.plot(task.interval, [place, place], color=_COLOURS[0], linewidth=2)
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_yticks(range(len(tasks)), [f"{task.title}\n{task.questions} questions" for task in tasks])
    axes.set_ylim(-0.6, len(tasks) - 0.4)
    names = f"A: {comparison.first}  B: {comparison.second}"
    axes.set_xlabel(f"mean score of B minus A, percentage points, 95 % interval\n{names}")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _save(figure, path)


def _figure(width: float, height: float, **subplot: Any) -> tuple[Any, Any]:
    figures = import_extra("matplotlib.figure", extra="eval", needed_for="A plot of scores")
    figure = figures.Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot(**subplot)


def _save(figure: Any, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, bbox_inches="tight", format="png")
    write_whole(path, picture.getvalue())
