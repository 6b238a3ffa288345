"""Published benchmark files -> rows: parquet, TSV, CSV, JSON and JSON lines, with images inside or beside them.

The files come from a folder, or are downloaded from the hub at a stated revision. Nothing here knows what a benchmark
asks; a row is a mapping from column to value.
"""

import base64
import binascii
import csv
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fusionvl.data.extras import import_extra

_SUFFIXES = (".parquet", ".tsv", ".csv", ".json", ".jsonl")
_BATCH_ROWS = 64
_PART = re.compile(r"(.*?)-(\d+)-of-(\d+)(?:-[0-9a-f]+)?")  # as the hub names them, counted from 0


class Images:
    """The images inside a benchmark's rows, each kept once however many questions are about it."""

    def __init__(self) -> None:
        self._by_name: dict[str, bytes] = {}
        self._names: dict[str, str] = {}  # by the key of the row that held the image

    def keep(self, content: bytes, key: str = "") -> tuple[bytes, str]:
        """The image as it was first seen, and a name that equal images share; a key is for rows that point to it."""
        name = self._names[key] = hashlib.sha256(content).hexdigest()[:16]
        return self._by_name.setdefault(name, content), name

    def kept(self, key: str, where: str) -> tuple[bytes, str]:
        """The image of an earlier row.

        Raises:
            ValueError: When no earlier row had the key.
        """
        if key not in self._names:
            raise ValueError(f"{where}: the image is that of {key!r}, which no row above is")
        return self._by_name[self._names[key]], self._names[key]


@dataclass(frozen=True)
class Row:
    """A row of a published table.

    Attributes:
        values: Column -> value.
        file: Where it stands.
        number: Among all rows of the benchmark, from 0.
        where: File and row, for error messages.
        images: What keeps the images of all rows.
    """

    values: Mapping[str, Any]
    file: Path
    number: int
    where: str
    images: Images = field(repr=False)

    def __getitem__(self, column: str) -> Any:
        return self.values[column]

    def get(self, *columns: str) -> Any:
        """The value of the first of these columns that there is and that is not empty; else None."""
        values = (self.values.get(column) for column in columns)
        return next((value for value in values if not is_empty(value)), None)

    def text(self, *columns: str) -> str:
        """The same as text without blanks at its ends.

        Raises:
            ValueError: When there is none.
        """
        value = self.get(*columns)
        if value is None:
            raise ValueError(f"{self.where}: {' or '.join(columns)} is empty")
        return str(value).strip()

    def image(self, key: str = "") -> tuple[bytes, str]:
        """The encoded image in the column `image`, and a name equal images share.

        The cell holds bytes, base64, the hub's `{"bytes", "path"}`, or the key of a row above with the same image.

        Args:
            key: What later rows point to this row with.

        Raises:
            ValueError: When there is no image in it.
        """
        value = self.values.get("image")
        if isinstance(value, Mapping):
            value = value.get("bytes")
        if isinstance(value, str) and value.isdecimal():
            return self.images.kept(value, self.where)
        if isinstance(value, str):
            value = _from_base64(value, self.where)
        if not isinstance(value, bytes) or not value:
            raise ValueError(f"{self.where}: no image in the column 'image': {_shortened(value)}")
        return self.images.keep(value, key)


def is_empty(value: object) -> bool:
    """Whether a cell holds nothing: None, not a number, blanks, or the text "nan" that tables are left with."""
    if isinstance(value, str):
        return value.strip() in ("", "nan")
    return value is None or value != value


@dataclass(frozen=True)
class Source:
    """Where the questions of a benchmark are published.

    Attributes:
        dataset: On the hub, as `owner/name`.
        hub_files: Patterns of what is downloaded of it.
        files: Patterns of the tables anywhere below the folder. Each is another published form of the same questions;
            the first that any file matches is read.
        columns: What every table must have; `a|b` takes either name.
        revision: Of the hub's data set.
        together: Names of tables that hold the questions only together.
    """

    dataset: str
    hub_files: tuple[str, ...]
    files: tuple[str, ...]
    columns: tuple[str, ...]
    revision: str = "main"
    together: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.dataset} on the Hugging Face hub, revision {self.revision}"

    def rows(self, folder: Path | None) -> Iterator[Row]:
        """Read the rows.

        Args:
            folder: With the published files; None downloads them.

        Raises:
            ValueError: When files or columns are missing, or a file cannot be read; says how to get the right ones.
        """
        folder = self.download() if folder is None else folder
        images = Images()
        total = 0
        with tqdm(unit="row", desc=f"Reading {self.dataset}", delay=2, leave=False) as bar:
            for path in self._find(folder):
                for number, values in enumerate(read_rows(path), start=1):
                    if number == 1:
                        self._check_columns(values, path)
                    yield Row(values, path, total, f"{path}, row {number}", images)
                    total += 1
                    bar.update()
        if not total:
            raise ValueError(f"{folder}: the files of {self.dataset} hold no rows. {self.how_to_download(folder)}")

    def download(self) -> Path:
        """Fetch the files into the hub's cache, or find them there.

        Raises:
            ValueError: When the hub cannot be reached or has no such data set; says how to download by hand.
        """
        from huggingface_hub import snapshot_download

        try:
            folder = snapshot_download(
                self.dataset, repo_type="dataset", revision=self.revision, allow_patterns=list(self.hub_files)
            )
        except OSError as error:  # what the hub's client raises without a network, and for unknown names, are OSErrors
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise ValueError(
                f"cannot download {self.dataset} ({reason}). {self.how_to_download(Path('FOLDER'))}, "
                "where there is a network, and give that folder"
            ) from error
        return Path(folder)

    def how_to_download(self, folder: Path) -> str:
        """The command that fetches the files."""
        patterns = " ".join(f"--include '{pattern}'" for pattern in self.hub_files)
        return (
            f"Get them with: hf download {self.dataset} --repo-type dataset --revision {self.revision} "
            f"{patterns} --local-dir {folder}"
        )

    def _find(self, folder: Path) -> list[Path]:
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder. {self.how_to_download(folder)}")
        for pattern in self.files:
            found = sorted(path for path in folder.rglob(pattern) if not _is_hidden(path, folder))
            if found:
                self._check_whole(found, folder)
                return found
        there = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.suffix in _SUFFIXES and not _is_hidden(path, folder)
        )
        holds = f"it holds {', '.join(there[:5]) or 'no tables'}{', ...' if len(there) > 5 else ''}"
        raise ValueError(
            f"{folder}: no file is called {' or '.join(self.files)}; {holds}. {self.how_to_download(folder)}"
        )

    def _check_whole(self, found: list[Path], folder: Path) -> None:
        """One version of the tables, and all of its parts: half a benchmark has another score."""
        folders = sorted({path.parent.relative_to(folder).as_posix() for path in found})
        families = {_part(path)[0] for path in found}
        if len(folders) > 1 or len(families) > 1:
            some = ", ".join(path.relative_to(folder).as_posix() for path in found[:4])
            raise ValueError(
                f"{folder} holds several versions of the tables ({some}): leave one of them in it. "
                f"{self.how_to_download(folder)}"
            )
        there = {_part(path)[1] for path in found}
        (_, count), *_ = families
        missing = [f"part {number} of {count}" for number in range(count or 0) if number not in there]
        names = {path.name for path in found}
        if names & set(self.together):
            missing += [name for name in self.together if name not in names]
        if missing:
            raise ValueError(
                f"{found[0].parent}: {', '.join(missing[:5])} of the tables is missing. {self.how_to_download(folder)}"
            )

    def _check_columns(self, values: Mapping[str, Any], path: Path) -> None:
        missing = [column for column in self.columns if not any(name in values for name in column.split("|"))]
        if missing:
            raise ValueError(
                f"{path}: no column {', '.join(missing)}; it has {', '.join(values)}. Is it of another data set? "
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


def _from_base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{where}: the image is neither bytes nor base64: {_shortened(text)}") from error


def _part(path: Path) -> tuple[tuple[str, int | None], int]:
    """What a table is a part of, as (name, number of parts), and which part; tables in one piece: (None, 0)."""
    match = _PART.fullmatch(path.stem)
    return ((match[1], int(match[3])), int(match[2])) if match else (("", None), 0)


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
