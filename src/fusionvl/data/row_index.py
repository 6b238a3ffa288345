"""Where the records of a file are and how large: a table on disk, built once, mapped into memory by every process.

The table's name carries the file's path, size and time of change, so a changed file gets another table, and a hash
of the file's contents, which tells whether they changed. Knows no kind of file: each brings its own way of finding
records.
"""

import functools
import glob
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tqdm import tqdm

from fusionvl.data.llava import measure_record
from fusionvl.data.record_file import RecordFile, Reopened
from fusionvl.data.source import Shapes
from fusionvl.run_folder import fingerprint, write_whole, writing

_SHAPE = (("characters", "<u4"), ("turns", "<u4"), ("has_image", "?"))
_FORMAT_VERSION = 2
_FOLDER = ".fusionvl-index"
_LONGEST_STEM = 40
_PIECE_ROWS = 8192


@dataclass(frozen=True)
class RowIndex(Reopened):
    """A finished table: for each record its place, characters, turns, and whether it has an image.

    Attributes:
        path: the table's file.
        columns: of the table.
    """

    path: Path
    columns: np.dtype[Any]

    @property
    def fingerprint(self) -> str:
        """Of the contents of the data file."""
        return self.path.stem.rpartition(".")[2]

    def __len__(self) -> int:
        return len(self._rows)

    def place(self, row: int) -> tuple[int, ...]:
        """Where a record is, in the terms of its kind of file."""
        return tuple(self._rows[row].item()[: -len(_SHAPE)])

    def shapes(self, rows: NDArray[np.int64]) -> Shapes:
        """Characters, turns and presence of an image."""
        found = self._rows[rows]
        return Shapes(found["characters"].astype(np.int64), found["turns"].astype(np.int64), found["has_image"])

    @functools.cached_property
    def _rows(self) -> NDArray[Any]:
        """The table, mapped into memory and not read."""
        if not self.path.stat().st_size:
            return np.zeros(0, self.columns)
        return np.memmap(self.path, self.columns, mode="r")


def open_index(file: RecordFile, *, folder: Path | None = None) -> RowIndex:
    """Opens the table of a data file, building it first where there is none or the data file has changed.

    Any number of processes may call this at once: one builds, the others wait for it. The table appears whole or not
    at all, so a process killed while building leaves nothing that another would take for a table. Building reads the
    whole file, to hash it and to find the records, and needs little memory whatever the file's size.

    Args:
        file: with the records.
        folder: where tables are kept; by default `.fusionvl-index` next to the data where that can be written, else
            the user's cache folder.

    Raises:
        ValueError: if there is no such data file, its records cannot be told apart, or the table cannot be written.
    """
    if not file.path.is_file():
        raise ValueError(f"{file.path}: there is no such data file")
    columns = np.dtype([*((name, "<i8") for name in file.place), *_SHAPE])
    home = _home(file.path) if folder is None else folder
    with writing(home):
        home.mkdir(parents=True, exist_ok=True)
    of_file, of_state = _names(file.path, columns)
    built = glob.escape(f"{of_file}.{of_state}.") + "*.rows"
    lock = home / f"{of_file}.lock"
    if not any(home.glob(built)):
        with FileLock(lock):
            if not any(home.glob(built)):
                table = home / f"{of_file}.{of_state}.{fingerprint(file.path)}.rows"
                write_whole(table, _pieces(file, columns))
                for old in set(home.glob(glob.escape(of_file) + ".*")) - {table, lock}:
                    old.unlink(missing_ok=True)
    return RowIndex(min(home.glob(built)), columns)


def _pieces(file: RecordFile, columns: np.dtype[Any]) -> Iterator[bytes]:
    scanned = tqdm(file.scan(), desc=f"Indexing {file.path.name}", unit=" rows", delay=2, leave=False)
    rows = ((*place, *measure_record(record)) for place, record in scanned)
    while piece := list(itertools.islice(rows, _PIECE_ROWS)):
        yield np.array(piece, columns).tobytes()


def _home(data_file: Path) -> Path:
    folder = data_file.parent / _FOLDER
    if os.access(folder if folder.exists() else data_file.parent, os.W_OK):
        return folder
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "fusionvl" / "row-index"


def _names(data_file: Path, columns: np.dtype[Any]) -> tuple[str, str]:
    """The part of a table's name that stands for the file, and the part that stands for its present state."""
    path = data_file.resolve()
    stat = path.stat()
    state = fingerprint([stat.st_size, stat.st_mtime_ns, _FORMAT_VERSION, columns.descr])
    return f"{path.stem[:_LONGEST_STEM]}-{fingerprint(str(path))[:16]}", state[:16]
