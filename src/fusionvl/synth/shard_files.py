"""The finished shards of a run and of its filters, parquet files `part-00012.parquet`.

A shard's journal, `part-00012.jsonl`, lies beside it while rows are being done, see `shards`. What differs from kind
to kind of row (seeds, prompts, models, facts) is kept as JSON text, so that all files have the same columns. Knows no
steps and no filters. Needs pyarrow.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusionvl.data.extras import import_extra
from fusionvl.run_folder import write_whole
from fusionvl.synth.rows import Row, row_from_dict

_NEEDED_FOR = "Keeping rows as parquet"
arrow: Any = import_extra("pyarrow", extra="synth", needed_for=_NEEDED_FOR)
compute: Any = import_extra("pyarrow.compute", extra="synth", needed_for=_NEEDED_FOR)
parquet: Any = import_extra("pyarrow.parquet", extra="synth", needed_for=_NEEDED_FOR)

Record: TypeAlias = dict[str, Any]
"""What is kept of a row: JSON with `id`, `status` (see `rows.Status`), `reason`, and the work's own."""

Marks: TypeAlias = NDArray[np.bool_]
"""For each row, whether."""

SHARD_FOLDER = "shards"
_AS_JSON = ("seeds", "prompt_hashes", "models", "truth")


# --- Shards ---


def shard_path(folder: Path, shard: int, suffix: str = ".parquet") -> Path:
    """Where a folder keeps a shard: finished, or its journal (`.jsonl`)."""
    return folder / f"part-{shard:05d}{suffix}"


def shard_number(path: Path) -> int:
    """The number of the shard that a file holds."""
    return int(path.stem.removeprefix("part-"))


def is_settled(folder: Path, shard: int, retry_errors: bool = False) -> bool:
    """Whether nothing is left to do in a shard, not even errors to be tried again when they shall be."""
    final = shard_path(folder, shard)
    if not final.exists() or shard_path(folder, shard, ".jsonl").exists():
        return False
    return not (retry_errors and count_statuses(final)["error"])


def finished_shards(folder: Path) -> list[Path]:
    """The finished shards of a folder, in order."""
    return sorted(folder.glob("part-*.parquet"))


def count_statuses(path: Path) -> Counter[str]:
    """How many rows of a finished shard have each status."""
    return Counter(read_table(path, ["status"])["status"].to_pylist())


def write_table(path: Path, table: Any) -> None:
    """Write a pyarrow table as a parquet file, which appears whole or not at all.

    Raises:
        CannotWriteError: When the disk is full or the place cannot be written.
    """
    buffer = arrow.BufferOutputStream()
    parquet.write_table(table, buffer)
    write_whole(path, buffer.getvalue().to_pybytes())


def read_table(path: Path, columns: Sequence[str] | None = None) -> Any:
    """Read a parquet file as a pyarrow table.

    Raises:
        ValueError: When it is none, or lacks a column.
    """
    try:
        with parquet.ParquetFile(path) as file:
            table = file.read(columns=columns if columns is None else list(columns))
    except arrow.ArrowInvalid as error:
        raise ValueError(f"{path} is no finished shard: {error}") from error
    if missing := set(columns or ()) - set(table.column_names):
        raise ValueError(f"{path} is no finished shard: it has no column {', '.join(sorted(missing))}")
    return table


def are_ok(table: Any) -> Marks:
    """Which rows of a table with the column `status` came out well."""
    return np.asarray(compute.equal(table["status"], "ok"), dtype=np.bool_)


def write_records(path: Path, records: Sequence[Record], schema: Any) -> None:
    """Write records as a parquet file of these columns, which appears whole or not at all.

    Raises:
        CannotWriteError: When the disk is full or the place cannot be written.
    """
    as_hex = _binary(schema)
    columns = [
        record
        | {name: json.dumps(record[name], ensure_ascii=False) for name in _AS_JSON if name in record}
        | {name: bytes.fromhex(record[name]) for name in as_hex if record[name] is not None}
        for record in records
    ]
    write_table(path, arrow.Table.from_pylist(columns, schema=schema))


def read_records(path: Path, schema: Any) -> list[Record]:
    """Read the records of a finished shard, in order; bytes are hexadecimal, since records are JSON.

    Raises:
        ValueError: When the file is no parquet file, or lacks a column.
    """
    as_hex = _binary(schema)
    return [
        record
        | {name: json.loads(record[name]) for name in _AS_JSON if name in record}
        | {name: record[name].hex() for name in as_hex if record[name] is not None}
        for record in read_table(path, schema.names).to_pylist()
    ]


def _binary(schema: Any) -> list[str]:
    return [field.name for field in schema if arrow.types.is_binary(field.type)]


# --- Rows of a run ---


_TURN = arrow.struct(
    [
        ("question", arrow.string()),
        ("answer", arrow.string()),
        ("options", arrow.list_(arrow.string())),
        ("correct", arrow.string()),
    ]
)
_TEXTS = ("id", "kind", "caption", "description", "image", "status", "reason", "finish_reason", "split", *_AS_JSON)
_NUMBERS = ("attempts", "input_tokens", "output_tokens")
ROW_SCHEMA = arrow.schema(
    sorted(
        [
            *((name, arrow.string()) for name in _TEXTS),
            *((name, arrow.int64()) for name in _NUMBERS),
            ("turns", arrow.list_(_TURN)),
        ]
    )
)
"""The columns of a run's finished shards."""


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a finished shard, in order; see `read_records`."""
    return [row_from_dict(record) for record in read_records(path, ROW_SCHEMA)]


def run_shards(folder: Path) -> list[Path]:
    """The finished shards of a run folder, in order.

    Raises:
        ValueError: When there is none.
    """
    shards = finished_shards(folder / SHARD_FOLDER)
    if not shards:
        raise ValueError(f"{folder} has no finished shard in {SHARD_FOLDER}/: run `fusionvl synth run` first")
    return shards


def finished_rows(folder: Path) -> Iterator[Row]:
    """Every row of every finished shard of a run folder, one shard in memory at a time.

    Raises:
        ValueError: When there is no finished shard, or one cannot be read.
    """
    for path in run_shards(folder):
        yield from read_rows(path)
