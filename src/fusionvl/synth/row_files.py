"""Finished shards: parquet files of rows, which appear whole or not at all.

What differs from kind to kind (seeds, prompts, models, facts) is kept as JSON text, so that all files have the same
columns. Knows no journals and no steps. Needs pyarrow.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fusionvl.data.extras import import_extra
from fusionvl.synth.rows import Row, row_from_dict

SHARD_FOLDER = "shards"
_AS_JSON = ("seeds", "prompt_hashes", "models", "truth")


def shard_path(folder: Path, shard: int, suffix: str = ".parquet") -> Path:
    """Where a run folder keeps a shard."""
    return folder / SHARD_FOLDER / f"part-{shard:05d}{suffix}"


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as a parquet file, under its name only when it is complete and on disk.

    Raises:
        ModuleNotFoundError: When pyarrow is not installed; says how to install it.
        OSError: When the file cannot be written, say because the disk is full; the name then stays as it was.
    """
    pyarrow, parquet = _pyarrow()
    table = pyarrow.Table.from_pylist([_columns(row) for row in rows], schema=_schema(pyarrow))
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        parquet.write_table(table, unfinished)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a finished shard, in order.

    Raises:
        ModuleNotFoundError: When pyarrow is not installed; says how to install it.
        ValueError: When the file is no parquet file of rows.
    """
    pyarrow, parquet = _pyarrow()
    try:
        records = parquet.read_table(path).to_pylist()
        return [_row(record) for record in records]
    except (pyarrow.ArrowInvalid, KeyError) as error:
        raise ValueError(f"{path} is no finished shard of rows: {error}") from error


def finished_shards(folder: Path) -> list[Path]:
    """The finished shards of a run folder, in order."""
    return sorted((folder / SHARD_FOLDER).glob("part-*.parquet"))


def finished_rows(folder: Path) -> Iterator[Row]:
    """Every row of every finished shard of a run folder, one shard in memory at a time.

    Raises:
        ValueError: When there is no finished shard, or one cannot be read.
    """
    shards = finished_shards(folder)
    if not shards:
        raise ValueError(f"{folder} has no finished shard in {SHARD_FOLDER}/: run `fusionvl synth run` first")
    for path in shards:
        yield from read_rows(path)


def count_statuses(path: Path) -> Counter[str]:
    """How many rows of a finished shard have each status."""
    _, parquet = _pyarrow()
    return Counter(parquet.read_table(path, columns=["status"])["status"].to_pylist())


def _columns(row: Row) -> dict[str, Any]:
    columns = asdict(row)
    return columns | {name: json.dumps(columns[name], ensure_ascii=False) for name in _AS_JSON}


def _row(record: dict[str, Any]) -> Row:
    return row_from_dict(record | {name: json.loads(record[name]) for name in _AS_JSON})


def _schema(pyarrow: Any) -> Any:
    text, number = pyarrow.string(), pyarrow.int64()
    turn = pyarrow.struct(
        [("question", text), ("answer", text), ("options", pyarrow.list_(text)), ("correct", text)],
    )
    texts = ("id", "kind", "caption", "description", "image", "status", "reason", "finish_reason", "split", *_AS_JSON)
    numbers = ("attempts", "input_tokens", "output_tokens")
    columns = dict.fromkeys(texts, text) | dict.fromkeys(numbers, number) | {"turns": pyarrow.list_(turn)}
    return pyarrow.schema(sorted(columns.items()))


def _pyarrow() -> tuple[Any, Any]:
    needed_for = "Keeping rows as parquet"
    pyarrow = import_extra("pyarrow", extra="synth", needed_for=needed_for)
    return pyarrow, import_extra("pyarrow.parquet", extra="synth", needed_for=needed_for)
