"""The datasheet of a run: what is in it, what was dropped and why, where it comes from. `fusionvl synth inspect DIR`.

Words, tables and plots of what `run_statistics.py` counted. Changes nothing in the run. Needs matplotlib.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusionvl.data.extras import import_extra
from fusionvl.run_folder import RECORD, read_record, write_whole
from fusionvl.synth.contact_sheet import contact_sheet, examples
from fusionvl.synth.plan import what_is_missing
from fusionvl.synth.run_statistics import LENGTH_EDGES, RunStatistics, count_run
from fusionvl.synth.scores import filters_of
from fusionvl.synth.selection import chosen_rows, read_selection
from fusionvl.text_table import markdown

_REASONS = 15
_ANSWERS = 8
_EXAMPLES = 16  # about so many
_BARS, _PLOTS_ABREAST = 10, 4


def write_datasheet(folder: Path, output: Path) -> str:
    """Writes `datasheet.md`, its plots and a sheet of examples into a folder, made if it is missing.

    Args:
        folder: The run's, with or without scores and selection.
        output: Where to write.

    Returns:
        The text of the datasheet.

    Raises:
        ValueError: If the run has no finished rows, or its selection fits its scores or rows no more.
    """
    selection = read_selection(folder)
    selected = selection is not None
    counted = count_run(folder, selected=selected)
    output.mkdir(parents=True, exist_ok=True)
    _draw_kinds(output / "kinds.png", counted)
    _draw_lengths(output / "lengths.png", counted)
    _draw_answers(output / "answers.png", counted)
    rows, each = chosen_rows(folder, selected=selected), -(-_EXAMPLES // len(counted.kinds))
    seen = examples(folder, rows, counted.drawn, each)
    if seen:
        contact_sheet(seen).save(output / "examples.png")
    sections = {
        f"# Datasheet of {folder.resolve().name}": _summary(counted, selection, what_is_missing(folder)),
        "## Rows of each kind": _kinds(counted) + "\n\n![rows of each kind](kinds.png)",
        "## Lengths": _lengths(counted) + "\n\n![lengths](lengths.png)",
        "## Answers": _answers(counted) + "\n\n![answers](answers.png)",
        "## Rows that did not come out well": _reasons(counted),
        "## What the selection dropped": _dropped(folder, selection),
        "## Where it comes from": _provenance(folder, counted),
        "## Examples": "![examples](examples.png)" if seen else "No image of a chosen row can be opened.",
    }
    text = "\n\n".join(f"{head}\n\n{body}" for head, body in sections.items())
    write_whole(output / "datasheet.md", text + "\n")
    return text


def _summary(counted: RunStatistics, selection: Mapping[str, Any] | None, missing: str | None) -> str:
    text = (
        f"{counted.rows.total():,} rows, {counted.of_status('ok'):,} of them sound, with {counted.questions:,} "
        f"questions and {counted.images:,} images. "
    )
    text += "Nothing is selected yet." if selection is None else f"The selection keeps {selection['kept']:,}."
    return text + (f"\n\n**The run is not finished: {missing}.**" if missing else "")


def _kinds(counted: RunStatistics) -> str:
    statuses = ("ok", "rejected", "error")
    lines = [
        (kind, *(counted.rows[kind, status] for status in statuses), counted.chosen[kind]) for kind in counted.kinds
    ]
    return _table(("kind", *statuses, "kept"), lines)


def _lengths(counted: RunStatistics) -> str:
    head = ("kind", "questions a row", "characters a question", "characters an answer", "longest answer")
    return _table(
        head,
        [
            (
                kind,
                f"{own.turns / counted.chosen[kind]:.1f}",
                f"{own.questions / own.turns:.0f}",
                f"{own.answers / own.turns:.0f}",
                own.longest,
            )
            for kind, own in counted.lengths.items()
        ],
    )


def _answers(counted: RunStatistics) -> str:
    lines = [
        (kind, len(own), ", ".join(f"{answer} ({count})" for answer, count in own.most_common(_ANSWERS)))
        for kind, own in counted.answers.items()
        if own
    ]
    table = _table(("kind", "different short answers", "most frequent"), lines)
    return table or "Short answers are counted once the filter `balance` has named them."


def _reasons(counted: RunStatistics) -> str:
    if not counted.reasons:
        return "None."
    lines = [(count, status, reason) for (status, reason), count in counted.reasons.most_common(_REASONS)]
    more = len(counted.reasons) - len(lines)
    return _table(("rows", "status", "reason"), lines) + (f"\n\n... and {more} more reasons." if more else "")


def _dropped(folder: Path, selection: Mapping[str, Any] | None) -> str:
    if selection is None:
        return f"Nothing is selected yet: `fusionvl synth {'select' if filters_of(folder) else 'filter'} DIR`."
    rules = selection["rules"]
    bounds = {**rules["limits"], **rules["caps"]}
    bounds |= {f"best {name}": {"share of each kind": share} for name, share in rules["best"].items()}
    lines = [(name, _bound(bounds[name]), count) for name, count in selection["dropped_by"].items()]
    return _table(("score", "bound", "rows dropped"), lines)


def _bound(bound: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in bound.items() if value is not None)


def _provenance(folder: Path, counted: RunStatistics) -> str:
    filters = [(name, json.dumps(settings)) for name, settings in filters_of(folder).items()]
    parts = [
        _table(("step", "made by", "rows"), _counted(counted.models)),
        _table(("step", "prompt", "rows"), _counted(counted.prompts)),
        f"Language models read {counted.tokens[0]:,} tokens and wrote {counted.tokens[1]:,}. Each row holds its own "
        "seeds.",
        _table(("filter", "settings"), filters),
    ]
    if (folder / RECORD).is_file():
        record = json.dumps(read_record(folder), indent=2, ensure_ascii=False)
        parts.append(f"The run, as `{RECORD}` says:\n\n```json\n{record}\n```")
    return "\n\n".join(part for part in parts if part)


def _counted(counts: Counter[tuple[str, str]]) -> list[tuple[str, str, int]]:
    return [(step, name, count) for (step, name), count in sorted(counts.items())]


def _table(head: Sequence[object], lines: Sequence[Sequence[object]]) -> str:
    """A Markdown table that reads well as text too; nothing without lines."""
    if not lines:
        return ""
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in line] for line in lines]
    return "\n".join(markdown([str(cell) for cell in head], cells, text_columns=len(head)))


# --- Plots ---


def _draw_kinds(path: Path, counted: RunStatistics) -> None:
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


def _draw_lengths(path: Path, counted: RunStatistics) -> None:
    """How long questions and answers are."""
    figure = _figure(8, 4)
    axes = figure.add_subplot()
    for name, bars in counted.bars.items():
        axes.stairs(bars, LENGTH_EDGES, label=f"{name}s")
    axes.set(xscale="log", xlabel="characters", ylabel="turns")
    axes.legend()
    figure.savefig(path, dpi=110)


def _draw_answers(path: Path, counted: RunStatistics) -> None:
    """The most frequent short answers of each kind."""
    shown = {kind: own for kind, own in counted.answers.items() if own}
    lines = max(1, -(-len(shown) // _PLOTS_ABREAST))
    figure = _figure(12, 2.4 * lines)
    for number, (kind, own) in enumerate(shown.items(), start=1):
        axes = figure.add_subplot(lines, _PLOTS_ABREAST, number)
        names, counts = zip(*own.most_common(_BARS), strict=True)
        axes.barh([name[:18].replace("$", r"\$") for name in names], counts)  # dollar signs begin formulas
        axes.invert_yaxis()
        axes.set_title(kind, fontsize=9)
        axes.tick_params(labelsize=7)
    figure.savefig(path, dpi=110)


def _figure(width: float, height: float) -> Any:
    figures = import_extra("matplotlib.figure", extra="synth", needed_for="the plots of a datasheet")
    return figures.Figure(figsize=(width, height), layout="constrained")
