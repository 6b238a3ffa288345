"""The finished rows of a run folder, `shards/part-00012.parquet`, and how many of the run's are there.

What differs from kind to kind (seeds, prompts, models, facts) is kept as JSON text, so that all files have the same
columns. Knows no steps. Needs pyarrow.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from fusionvl.run_folder import RECORD, read_record
from fusionvl.synth.plan import Plan
from fusionvl.synth.rows import Row, row_from_dict
from fusionvl.synth.shards import Record, finished_shards, is_settled, pyarrow, read_table, shard_path, write_table

SHARD_FOLDER = "shards"
_AS_JSON = ("seeds", "prompt_hashes", "models", "truth")


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write rows, as their plain values, as a parquet file, which appears whole or not at all.

    Raises:
        ModuleNotFoundError: When pyarrow is not installed; says how to install it.
        CannotWriteError: When the file cannot be written, say because the disk is full.
    """
    columns = [
        record | {name: json.dumps(record[name], ensure_ascii=False) for name in _AS_JSON} for record in records
    ]
    write_table(path, pyarrow().Table.from_pylist(columns, schema=_schema()))


def read_records(path: Path) -> list[Record]:
    """Read the rows of a finished shard as plain values, in order.

    Raises:
        ModuleNotFoundError: When pyarrow is not installed; says how to install it.
        ValueError: When the file is no parquet file of rows.
    """
    records = read_table(path, _schema().names).to_pylist()
    return [record | {name: json.loads(record[name]) for name in _AS_JSON} for record in records]


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a finished shard, in order; see `read_records`."""
    return [row_from_dict(record) for record in read_records(path)]


def finished_rows(folder: Path) -> Iterator[Row]:
    """Every row of every finished shard of a run folder, one shard in memory at a time.

    Raises:
        ValueError: When there is no finished shard, or one cannot be read.
    """
    shards = finished_shards(folder / SHARD_FOLDER)
    if not shards:
        raise ValueError(f"{folder} has no finished shard in {SHARD_FOLDER}/: run `fusionvl synth run` first")
    for path in shards:
        yield from read_rows(path)


def first_with_image(folder: Path, each: int) -> Iterator[tuple[Row, Image.Image]]:
    """So many rows of each kind that came out well and have an image, as far as there are so many, kind by kind.

    Raises:
        ValueError: When there is no finished shard, or one cannot be read.
    """
    kinds = read_record(folder)["settings"]["rows"]
    found: dict[str, list[Row]] = {kind: [] for kind in kinds}
    for row in finished_rows(folder):
        if row.status == "ok" and row.image is not None and len(found[row.kind]) < each:
            found[row.kind].append(row)
            if all(len(rows) == min(each, kinds[kind]) for kind, rows in found.items()):
                break
    for row in chain.from_iterable(found.values()):
        with Image.open(folder / str(row.image)) as image:
            yield row, image.convert("RGB")


def what_is_missing(folder: Path) -> str | None:
    """What there is of a half-finished run: `N of M rows; K shards unfinished`. Reads no rows.

    A shard that was begun again, for its errors, is unfinished although its rows of before are there.

    Returns:
        None when the run is whole, or the folder has no `run.json` that could say so.
    """
    if not (folder / RECORD).is_file():
        return None
    settings = read_record(folder)["settings"]
    plan = Plan(*(settings[name] for name in ("source", "split", "seed", "rows", "shard_size")))
    shards = folder / SHARD_FOLDER
    unfinished = sum(not is_settled(shards, shard) for shard in range(plan.shards))
    if not unfinished:
        return None
    there = sum(plan.rows_in(shard) for shard in range(plan.shards) if shard_path(shards, shard).exists())
    return f"{there:,} of {len(plan):,} rows; {unfinished:,} shards unfinished"


def _schema() -> Any:
    arrow = pyarrow()
    text, number = arrow.string(), arrow.int64()
    turn = arrow.struct([("question", text), ("answer", text), ("options", arrow.list_(text)), ("correct", text)])
    texts = ("id", "kind", "caption", "description", "image", "status", "reason", "finish_reason", "split", *_AS_JSON)
    numbers = ("attempts", "input_tokens", "output_tokens")
    columns = dict.fromkeys(texts, text) | dict.fromkeys(numbers, number) | {"turns": arrow.list_(turn)}
    return arrow.schema(sorted(columns.items()))
