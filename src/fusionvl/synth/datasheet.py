"""The datasheet of a run: what is in it, what was dropped and why, where it comes from. `fusionvl synth inspect DIR`.

Counts and words; plots and pictures are drawn by `datasheet_plots.py`. Changes nothing in the run.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fusionvl.synth.completeness import what_is_missing
from fusionvl.synth.datasheet_plots import draw_answers, draw_examples, draw_kinds, draw_lengths
from fusionvl.synth.filtering import kinds_of
from fusionvl.synth.filters.balance import SEPARATOR, score_balance
from fusionvl.synth.row_files import finished_rows
from fusionvl.synth.rows import Row
from fusionvl.synth.scores import SCORES_FILE, read_scores
from fusionvl.synth.selection import SELECTION_FILE, recorded_selection

_RUN_FILE = "run.json"
_REASONS = 15
_ANSWERS = 8


def write_datasheet(folder: Path, output: Path) -> str:
    """Writes `datasheet.md`, its plots and a sheet of examples into a folder, made if it is missing.

    Args:
        folder: The run's, with or without scores and selection.
        output: Where to write.

    Returns:
        The text of the datasheet.

    Raises:
        ValueError: If the run has no finished rows, or its selection fits its scores no more.
    """
    rows = list(finished_rows(folder))
    if not rows:
        raise ValueError(f"{folder}: its finished shards hold no rows")
    sound = [row for row in rows if row.status == "ok"]
    kept = _kept(folder, sound)
    chosen = sound if kept is None else [row for row in sound if row.id in kept]
    output.mkdir(parents=True, exist_ok=True)
    draw_kinds(output / "kinds.png", _by_kind(rows, kept))
    draw_lengths(output / "lengths.png", chosen)
    draw_answers(output / "answers.png", _answers(chosen))
    draw_examples(output / "examples.png", _spread(chosen), folder)
    text = "\n\n".join(
        [
            f"# Datasheet of {folder.resolve().name}",
            _summary(rows, sound, kept, what_is_missing(folder)),
            "## Rows of each kind\n\n" + _kinds(rows, kept) + "\n\n![rows of each kind](kinds.png)",
            "## Lengths\n\n" + _lengths(chosen) + "\n\n![lengths](lengths.png)",
            "## Answers\n\n" + _answer_table(chosen) + "\n\n![answers](answers.png)",
            "## Rows that did not come out well\n\n" + _reasons(rows),
            "## What the selection dropped\n\n" + _dropped(folder),
            "## Where it comes from\n\n" + _provenance(folder, rows),
            "## Examples\n\n![examples](examples.png)",
        ]
    )
    (output / "datasheet.md").write_text(text + "\n", encoding="utf-8")
    return text


def _kept(folder: Path, sound: Sequence[Row]) -> set[str] | None:
    """The chosen ids; None where nothing was selected yet."""
    if not (folder / SELECTION_FILE).is_file():
        return None
    table = read_scores(folder)
    return set(recorded_selection(folder, table, kinds_of(table, sound, folder)).kept)


def _summary(rows: Sequence[Row], sound: Sequence[Row], kept: set[str] | None, missing: str | None) -> str:
    turns = sum(len(row.turns) for row in sound)
    images = sum(row.image is not None for row in sound)
    text = f"{len(rows):,} rows, {len(sound):,} of them sound, with {turns:,} questions and {images:,} images. "
    text += "Nothing is selected yet." if kept is None else f"The selection keeps {len(kept):,}."
    return text + (f"\n\n**The run is not finished: {missing}.**" if missing else "")


def _by_kind(rows: Sequence[Row], kept: set[str] | None) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        own = counts.setdefault(row.kind, Counter())
        own[row.status] += 1
        own["kept"] += row.status == "ok" and (kept is None or row.id in kept)
    return {kind: {name: own[name] for name in ("ok", "rejected", "error", "kept")} for kind, own in counts.items()}


def _kinds(rows: Sequence[Row], kept: set[str] | None) -> str:
    counts = _by_kind(rows, kept)
    return _table(("kind", "ok", "rejected", "error", "kept"), [(kind, *own.values()) for kind, own in counts.items()])


def _lengths(rows: Sequence[Row]) -> str:
    lines = []
    for kind in dict.fromkeys(row.kind for row in rows):
        own = [row for row in rows if row.kind == kind]
        questions = [len(turn.question) for row in own for turn in row.turns]
        answers = [len(turn.answer) for row in own for turn in row.turns]
        turns = f"{sum(len(row.turns) for row in own) / len(own):.1f}"
        lines.append((kind, turns, _mean(questions), _mean(answers), max(answers, default=0)))
    head = ("kind", "questions a row", "characters a question", "characters an answer", "longest answer")
    return _table(head, lines)


def _mean(numbers: Sequence[int]) -> str:
    return f"{sum(numbers) / len(numbers):.0f}" if numbers else "-"


def _answers(rows: Sequence[Row]) -> dict[str, Counter[str]]:
    """For each kind, how many rows hold each short answer."""
    counts: dict[str, Counter[str]] = {}
    for row, names in zip(rows, score_balance(rows)["answers"], strict=True):
        counts.setdefault(row.kind, Counter()).update(str(names).split(SEPARATOR) if names else ())
    return counts


def _answer_table(rows: Sequence[Row]) -> str:
    lines = [
        (kind, len(own), ", ".join(f"{answer} ({count})" for answer, count in own.most_common(_ANSWERS)))
        for kind, own in _answers(rows).items()
        if own
    ]
    return _table(("kind", "different short answers", "most frequent"), lines)


def _reasons(rows: Sequence[Row]) -> str:
    reasons = Counter((row.status, row.reason) for row in rows if row.status != "ok")
    if not reasons:
        return "None."
    lines = [(count, status, reason) for (status, reason), count in reasons.most_common(_REASONS)]
    more = len(reasons) - len(lines)
    return _table(("rows", "status", "reason"), lines) + (f"\n\n... and {more} more reasons." if more else "")


def _dropped(folder: Path) -> str:
    if not (folder / SELECTION_FILE).is_file():
        scored = (folder / SCORES_FILE).is_file()
        return f"Nothing is selected yet: `fusionvl synth {'select' if scored else 'filter'} DIR`."
    record = json.loads((folder / SELECTION_FILE).read_text(encoding="utf-8"))
    bounds = {**record["rules"]["limits"], **record["rules"]["caps"]}
    lines = [(name, _bound(bounds.get(name, {})), record["dropped_by"].get(name, 0)) for name in record["used"]]
    return _table(("score", "bound", "rows dropped"), lines)


def _bound(bound: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in bound.items() if value is not None) or "best of the kind"


def _provenance(folder: Path, rows: Sequence[Row]) -> str:
    parts = [_table(("step", "made by", "rows"), _counted(row.models for row in rows))]
    parts.append(_table(("step", "prompt", "rows"), _counted(row.prompt_hashes for row in rows)))
    tokens = sum(row.input_tokens for row in rows), sum(row.output_tokens for row in rows)
    parts.append(f"Language models read {tokens[0]:,} tokens and wrote {tokens[1]:,}. Each row holds its own seeds.")
    if (folder / SCORES_FILE).is_file():
        filters = read_scores(folder).filters
        parts.append(
            _table(("filter", "settings"), [(name, json.dumps(own["settings"])) for name, own in filters.items()])
        )
    if (folder / _RUN_FILE).is_file():
        manifest = json.loads((folder / _RUN_FILE).read_text(encoding="utf-8"))
        parts.append(
            f"The run, as `{_RUN_FILE}` says:\n\n```json\n{json.dumps(manifest, indent=2, ensure_ascii=False)}\n```"
        )
    return "\n\n".join(part for part in parts if part)


def _counted(named: Iterable[dict[str, str]]) -> list[tuple[str, str, int]]:
    counts = Counter(item for names in named for item in names.items())
    return [(step, name, count) for (step, name), count in sorted(counts.items())]


def _spread(rows: Sequence[Row]) -> list[Row]:
    """The first row of each kind, then the second, up to sixteen that have an image."""
    by_kind: dict[str, list[Row]] = {}
    for row in rows:
        if row.image is not None:
            by_kind.setdefault(row.kind, []).append(row)
    nth = [own[place] for place in range(16) for own in by_kind.values() if place < len(own)]
    return nth[:16]


def _table(head: Sequence[object], lines: Sequence[Sequence[object]]) -> str:
    """A Markdown table that reads well as text too; nothing without lines."""
    if not lines:
        return ""
    cells = [
        [f"{cell:,}" if isinstance(cell, int) else str(cell).replace("|", "\\|").replace("\n", " ") for cell in line]
        for line in (head, *lines)
    ]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in cells]
    rule = ["-" * width for width in widths]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))
