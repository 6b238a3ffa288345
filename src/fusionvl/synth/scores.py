"""The scores of a run: for each filter a folder with a file of columns for each shard, put together to one table.

    scores/judge/run.json             what the scores depend on
    scores/judge/part-00012.parquet   the scores of shard 12
    scores/judge/part-00012.jsonl     those of a shard that is begun

Each filter writes files of its own, so filters that run at once do not meet. Reads ids, kinds and scores; never texts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusionvl.run_folder import fingerprint, read_record
from fusionvl.synth.filters import FILTERS
from fusionvl.synth.filters.duplicates import Numbers, image_groups, text_groups
from fusionvl.synth.shard_files import arrow, compute, finished_shards, read_table, run_shards

SCORES_FOLDER = "scores"
_SKETCHES = "text_sketch"  # the largest column by far: read file by file


def scores_folder(folder: Path, name: str) -> Path:
    """Where a run keeps the scores of a filter."""
    return folder / SCORES_FOLDER / name


def filters_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The filters that have scored rows of a run, with the settings of each."""
    there = [name for name in FILTERS if finished_shards(scores_folder(folder, name))]
    return {name: read_record(scores_folder(folder, name))["settings"] for name in there}


def errors_column(name: str) -> str:
    """The name of the column that says which rows a filter could not score: 1, else 0."""
    return f"{name.replace('-', '_')}_errors"


def read_scores(folder: Path, name: str, rows: Any) -> Any:
    """Reads the scores of a filter, a column each, as a pyarrow table in the order of the run's rows.

    In place of the sketches of `duplicates` there are `text_group` and `image_group`: the place of the first row of
    the group that a row is in. `NAME_errors` is 1 for a row that the filter could not score.

    Args:
        folder: The run's.
        name: Of the filter.
        rows: The run's, see `ok_rows`.

    Raises:
        ValueError: If it has not scored every row of the run, or a file is broken.
    """
    parts = finished_shards(scores_folder(folder, name))
    columns = [column for column in read_table(parts[0]).column_names if column != _SKETCHES]
    tables, start = [], 0
    for path in parts:
        table = read_table(path, columns)
        if not table["id"].equals(rows["id"].slice(start, len(table))):
            break
        start += len(table)
        errors = compute.equal(table["status"], "error").cast("float64")
        tables.append(table.drop_columns(["id", "status", "reason"]).append_column(errors_column(name), errors))
    if start < len(rows) or len(tables) < len(parts):
        raise ValueError(
            f"{folder}: {sum(len(read_table(path, ['id'])) for path in parts):,} rows are scored by {name}, "
            f"{len(rows):,} are in the run, and not all are the same; run: fusionvl synth filter {folder} --filters "
            f"{name}. To go without these scores, remove {scores_folder(folder, name)}"
        )
    scores = arrow.concat_tables(tables)
    return _with_groups(scores, parts) if _SKETCHES in read_table(parts[0]).column_names else scores


def _with_groups(scores: Any, parts: Sequence[Path]) -> Any:
    """The scores of `duplicates` with the groups of near rows; of the sketches only numbers are held in memory."""
    sketches = (each for path in parts for each in read_table(path, [_SKETCHES])[_SKETCHES].to_pylist())
    scores = scores.append_column("text_group", _places(text_groups(sketches, len(scores))))
    scores = scores.append_column("image_group", _places(_image_groups(scores["image_hash"])))
    return scores.drop_columns(["image_hash"])


def _image_groups(hashes: Any) -> Numbers:
    """For each row the place of the first row of its group, -1 without an image."""
    there = np.flatnonzero(hashes.is_valid().to_numpy())
    numbers = (int(each, 16) for chunk in hashes.drop_null().iterchunks() for each in chunk.to_pylist())
    bits = np.fromiter(numbers, dtype=np.uint64)
    firsts = np.full(len(hashes), -1)
    firsts[there] = there[image_groups(bits)]
    return firsts


def _places(firsts: Numbers) -> Any:
    return arrow.array(firsts, mask=firsts < 0)


def ok_rows(folder: Path) -> Any:
    """The ids and kinds of a run's rows that came out well, in order, as a pyarrow table.

    Raises:
        ValueError: If there are none.
    """
    tables = []
    for path in run_shards(folder):
        table = read_table(path, ["id", "kind", "status"])
        tables.append(table.filter(compute.equal(table["status"], "ok")).drop_columns(["status"]))
    ok = arrow.concat_tables(tables)
    if not len(ok):
        raise ValueError(f"{folder}: none of its finished rows has the status 'ok'")
    return arrow.table({"id": ok["id"], "kind": ok["kind"].combine_chunks().dictionary_encode()})


def scores_fingerprint(folder: Path) -> str:
    """Tells whether scores have changed since."""
    parts = [path for name in FILTERS for path in finished_shards(scores_folder(folder, name))]
    return fingerprint([path.relative_to(folder).as_posix() for path in parts], *parts)
