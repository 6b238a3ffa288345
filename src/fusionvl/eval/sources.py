"""Published benchmark files -> rows: parquet, TSV, CSV, JSON and JSON lines, with images inside or beside them.

The files come from a folder, or are downloaded from the hub at a stated revision. Nothing here knows what a benchmark
asks; a row is a mapping from column to value.
"""

import base64
import binascii
import csv
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from fusionvl.data.extras import import_extra

Row: TypeAlias = Mapping[str, Any]

_SUFFIXES = (".parquet", ".tsv", ".csv", ".json", ".jsonl")
_BATCH_ROWS = 64


@dataclass(frozen=True)
class Source:
    """Where the questions of a benchmark are published.

    Attributes:
        dataset: On the hub, as `owner/name`.
        files: Patterns below the folder, for instance `**/test-*.parquet`. Each is another published form of the same
            questions; the first that any file matches is read.
        columns: What every row must have. `a|b` takes either name.
        revision: Of the hub's data set.
        extra_files: Patterns of what else to download, for instance images beside a table.
    """

    dataset: str
    files: tuple[str, ...]
    columns: tuple[str, ...]
    revision: str = "main"
    extra_files: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.dataset} on the Hugging Face hub, revision {self.revision}"

    def rows(self, folder: Path | None) -> Iterator[Row]:
        """Read the rows, each with the path of its file under `__file__`.

        Args:
            folder: With the published files; None downloads them.

        Raises:
            ValueError: When files or columns are missing, or a file cannot be read; says how to get the right ones.
        """
        folder = self.download() if folder is None else folder
        count = 0
        for path in self._find(folder):
            for number, row in enumerate(read_rows(path), start=1):
                if number == 1:
                    self._check_columns(row, path)
                count += 1
                yield {**row, "__file__": path}
        if not count:
            raise ValueError(f"{folder}: the files of {self.dataset} hold no rows. {self.how_to_download(folder)}")

    def download(self) -> Path:
        """Fetch the files into the hub's cache, or find them there.

        Raises:
            ValueError: When the hub cannot be reached or has no such data set; says how to download by hand.
        """
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

        try:
            folder = snapshot_download(
                self.dataset,
                repo_type="dataset",
                revision=self.revision,
                allow_patterns=[pattern.removeprefix("**/") for pattern in self._patterns()],
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"cannot download {self.dataset} ({reason}). {self.how_to_download(Path('FOLDER'))}, "
                "where there is a network, and give that folder"
            ) from error
        return Path(folder)

    def how_to_download(self, folder: Path) -> str:
        """The command that fetches the files."""
        patterns = " ".join(f"--include '{pattern.removeprefix('**/')}'" for pattern in self._patterns())
        return (
            f"Get them with: hf download {self.dataset} --repo-type dataset --revision {self.revision} "
            f"{patterns} --local-dir {folder}"
        )

    def _patterns(self) -> tuple[str, ...]:
        # The hub's patterns match across folders, so "*/" is all that "**/" may stand for there.
        return tuple(f"*{pattern.removeprefix('**/')}" for pattern in (*self.files, *self.extra_files))

    def _find(self, folder: Path) -> list[Path]:
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder. {self.how_to_download(folder)}")
        for pattern in self.files:
            found = sorted(path for path in folder.glob(pattern) if not _is_hidden(path, folder))
            if found:
                return found
        there = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.suffix in _SUFFIXES and not _is_hidden(path, folder)
        )
        holds = (
            f"it holds {', '.join(there[:5])}{', ...' if len(there) > 5 else ''}" if there else "it holds no tables"
        )
        raise ValueError(
            f"{folder}: no file is called {' or '.join(self.files)} ({holds}). {self.how_to_download(folder)}"
        )

    def _check_columns(self, row: Row, path: Path) -> None:
        missing = [column for column in self.columns if not any(name in row for name in column.split("|"))]
        if missing:
            has = ", ".join(row)
            raise ValueError(
                f"{path}: no column {', '.join(missing)}; it has {has}. It is of another data set or split: "
                f"{self.how_to_download(path.parent)}"
            )


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read a table of any of the known forms, row by row.

    Raises:
        ValueError: When the file cannot be read as what its name says.
    """
    readers = {
        ".parquet": _parquet_rows,
        ".tsv": lambda table: _separated_rows(table, "\t"),
        ".csv": lambda table: _separated_rows(table, ","),
        ".json": _json_rows,
        ".jsonl": _json_lines,
    }
    if path.suffix not in readers:
        raise ValueError(f"{path}: not a table; known are {', '.join(_SUFFIXES)}")
    try:
        yield from readers[path.suffix](path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error


class Images:
    """The images of a benchmark's rows, each kept once however many questions are about it."""

    def __init__(self) -> None:
        self._by_hash: dict[str, bytes] = {}

    def of(self, value: object, where: str) -> tuple[bytes, str]:
        """The encoded image in a table's cell, and a name that equal images share.

        Args:
            value: Bytes, base64 text, or the hub's `{"bytes": ..., "path": ...}`.
            where: Named in errors.

        Raises:
            ValueError: When there is no image in it.
        """
        if isinstance(value, Mapping):
            value = value.get("bytes")
        if isinstance(value, str):
            value = _from_base64(value, where)
        if not isinstance(value, bytes) or not value:
            raise ValueError(f"{where}: no image: {_shortened(value)}")
        name = hashlib.sha256(value).hexdigest()[:16]
        return self._by_hash.setdefault(name, value), name


def _from_base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{where}: the image is neither bytes nor base64: {_shortened(text)}") from error


def _shortened(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    pyarrow = import_extra("pyarrow", extra="eval", needed_for="a benchmark in parquet files")
    parquet = import_extra("pyarrow.parquet", extra="eval", needed_for="a benchmark in parquet files")
    try:
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=_BATCH_ROWS):
                yield from batch.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: not a whole parquet file ({error}); download it again") from error


def _separated_rows(path: Path, separator: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a cell may be an image in base64
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            for row in csv.DictReader(file, delimiter=separator, strict=True):
                if None in row or None in row.values():
                    raise ValueError(f"{path}: row {row.get('index', '?')} has other cells than the header names")
                yield dict(row)
        except csv.Error as error:
            raise ValueError(f"{path}: not a whole table ({error}); download it again") from error


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    rows = _decoded(path.read_text(encoding="utf-8-sig"), str(path))
    if not isinstance(rows, list):
        raise ValueError(f"{path}: must hold a list of rows, not {type(rows).__name__}")
    for number, row in enumerate(rows, start=1):
        yield _checked(row, f"{path}, row {number}")


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                where = f"{path}, line {number}"
                yield _checked(_decoded(line, where), where)


def _decoded(text: str, where: str) -> object:
    try:
        decoded: object = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not valid JSON ({error})") from error
    return decoded


def _checked(row: object, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: must be an object, not {type(row).__name__}")
    return row
