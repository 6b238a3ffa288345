"""Scores the rows of a finished run: `fusionvl synth filter DIR`.

One pass over the rows, all filters piece by piece. Rows stay as they are.
"""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from fusionvl.synth.filters.columns import Columns, Score, joined
from fusionvl.synth.filters.registry import Filter, Models, make_filter
from fusionvl.synth.row_files import finished_rows
from fusionvl.synth.rows import Row
from fusionvl.synth.scores import SCORES_FILE, ScoreJournal, ScoreTable, read_scores

_PIECE_ROWS = 64  # what a costly filter may lose when it is stopped


def filter_run(folder: Path, names: Sequence[str], models: Models) -> ScoreTable:
    """Scores all finished rows of a run and writes `scores.parquet`.

    Scores of filters that do not run now are kept. They must be there for every row: with some missing, a selection
    would let rows pass that nobody has looked at.

    Args:
        folder: The run's.
        names: Of the filters.
        models: For the filters that need one.

    Returns:
        All scores.

    Raises:
        ValueError: If the run has no sound rows, a filter is unknown, or lacks its model, or rows are new and a filter
            that has scored the others does not run now. The scores then stay as they were.
    """
    rows = sound_rows(folder)
    table = _scores_so_far(folder, [row.id for row in rows], names)
    for name, (settings, columns) in score_rows(rows, folder, names, models, journals=True).items():
        table.put(name, settings, columns)
    table.write(folder)
    return table


def _scores_so_far(folder: Path, ids: Sequence[str], names: Sequence[str]) -> ScoreTable:
    if not (folder / SCORES_FILE).is_file():
        return ScoreTable(list(ids))
    before = read_scores(folder)
    new = len(set(ids) - set(before.ids))
    if not new:
        return before.of_rows(ids)
    if idle := [name for name in before.filters if name not in names]:
        every = " ".join(dict.fromkeys((*before.filters, *names)))
        raise ValueError(
            f"{folder}: {new:,} rows are new since {', '.join(idle)} scored the others; run them again, too, with the "
            f"models they need: --filters {every}. What costs requests is asked about new rows only. To go without "
            f"these scores, remove {folder / SCORES_FILE}"
        )
    return ScoreTable(list(ids))


def sound_rows(folder: Path) -> list[Row]:
    """Reads the finished rows of a run that came out well, in order.

    Raises:
        ValueError: If there are none.
    """
    rows = list(finished_rows(folder))
    sound = [row for row in rows if row.status == "ok"]
    if not sound:
        raise ValueError(f"{folder}: none of its {len(rows)} finished rows has the status 'ok'")
    return sound


def kinds_of(table: ScoreTable, rows: Sequence[Row], folder: Path) -> list[str]:
    """The kinds of scored rows, in the order of their scores.

    Raises:
        ValueError: If the scores are of other rows than these.
    """
    kinds = {row.id: row.kind for row in rows}
    if kinds.keys() != set(table.ids):
        raise ValueError(
            f"{folder}: {len(table.ids)} rows are scored, {len(kinds)} are in the run and not all are the same;"
            f" run: fusionvl synth filter {folder}"
        )
    return [kinds[name] for name in table.ids]


def score_rows(
    rows: Sequence[Row], folder: Path, names: Sequence[str], models: Models, *, journals: bool = False
) -> dict[str, tuple[dict[str, object], Columns]]:
    """Scores rows.

    Args:
        rows: In the run's order.
        folder: What image paths are relative to.
        names: Of the filters.
        models: For the filters that need one.
        journals: Whether costly filters keep a journal in the folder and go on from it.

    Returns:
        For each filter its settings and its columns.

    Raises:
        ValueError: If a filter is unknown, or lacks its model.
    """
    with asyncio.Runner() as loop:
        filters = [make_filter(name, models, loop) for name in dict.fromkeys(names)]
        kept = {
            each.name: ScoreJournal(folder, each.name, each.settings) for each in filters if journals and each.costly
        }
        parts: dict[str, list[Columns]] = {each.name: [] for each in filters}
        with tqdm(total=len(rows), unit="row", desc="Filtering", delay=2, leave=False) as bar:
            for start in range(0, len(rows), _PIECE_ROWS):
                piece = rows[start : start + _PIECE_ROWS]
                for each in filters:
                    parts[each.name].append(_score(each, piece, folder, kept.get(each.name)))
                bar.update(len(piece))
    return {each.name: (each.settings, joined(each.columns, parts[each.name])) for each in filters}


def _score(each: Filter, rows: Sequence[Row], folder: Path, journal: ScoreJournal | None) -> Columns:
    if journal is None:
        return each.score(rows, folder)
    new = [row for row in rows if journal.known(row.id) is None]
    if new:
        journal.add([row.id for row in new], _row_by_row(each.score(new, folder)))
    known = [journal.known(row.id) or {} for row in rows]
    return {name: [scores[name] for scores in known] for name in each.columns}


def _row_by_row(columns: Columns) -> Iterator[dict[str, Score]]:
    for scores in zip(*columns.values(), strict=True):
        yield dict(zip(columns, scores, strict=True))
