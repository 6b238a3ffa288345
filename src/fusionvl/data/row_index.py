"""Where the rows of a data file are: a table on disk, built once, memory-mapped by every process that reads the file.

The table is an ordinary `.npy` file of one record per row. Its name carries the file's path, size and time of change
and the version of the format, so a changed file gets another table. Knows nothing of what a row holds: each kind of
source brings its own columns and its own way of finding rows.
"""

import contextlib
import functools
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from filelock import FileLock
from numpy.lib import format as npy
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[Any]
"""A structured array: one record per row of the data file."""

_FORMAT_VERSION = 1
_FOLDER = ".fusionvl-index"
_LONGEST_STEM = 60


@dataclass(frozen=True)
class RowIndex:
    """A finished table. Pickles as its path, so a worker process maps the file instead of copying it.

    Attributes:
        path: the table's file.
    """

    path: Path

    @functools.cached_property
    def rows(self) -> Rows:
        """All records, mapped into memory and not read."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}


def open_index(
    data_file: Path,
    columns: np.dtype[Any],
    find_rows: Callable[[], Iterator[Rows]],
    *,
    folder: Path | None = None,
) -> RowIndex:
    """Opens the table of a data file, building it first where there is none or the data file has changed.

    Any number of processes may call this at once: one builds, the others wait for it. The table appears whole or not
    at all, so a process killed while building leaves nothing that another would take for a table.

    Args:
        data_file: the file with the rows.
        columns: of the table.
        find_rows: reads the data file and yields pieces of the table, in order.
        folder: where tables are kept; by default `.fusionvl-index` next to the data where that can be written, else
            the user's cache folder.

    Raises:
        ValueError: if there is no such data file, or `find_rows` cannot read it.
        OSError: if the table cannot be written.
    """
    if not data_file.is_file():
        raise ValueError(f"{data_file}: there is no such data file")
    home = _home(data_file) if folder is None else folder
    home.mkdir(parents=True, exist_ok=True)
    of_file, of_state = _names(data_file, columns)
    target = home / f"{of_file}.{of_state}.npy"
    if _is_whole(target, columns):
        return RowIndex(target)
    with FileLock(home / f"{of_file}.lock"):
        if not _is_whole(target, columns):
            _build(target, columns, find_rows)
            for old in home.glob(f"{of_file}.*.npy"):
                if old != target:
                    old.unlink(missing_ok=True)
    return RowIndex(target)


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
    state = f"{stat.st_size}/{stat.st_mtime_ns}/{_FORMAT_VERSION}/{columns.descr}"
    return f"{path.stem[:_LONGEST_STEM]}-{_digest(str(path))}", _digest(state)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _is_whole(target: Path, columns: np.dtype[Any]) -> bool:
    """Whether a table is there with every record; a torn one (say after a full disk) counts as missing."""
    try:
        rows = np.load(target, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return bool(rows.dtype == columns and target.stat().st_size == rows.offset + rows.nbytes)


def _build(target: Path, columns: np.dtype[Any], find_rows: Callable[[], Iterator[Rows]]) -> None:
    handle, name = tempfile.mkstemp(prefix=f"{target.stem}.", suffix=".unfinished", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            _write_header(file, columns, 0)
            count = 0
            for piece in find_rows():
                file.write(np.ascontiguousarray(piece, dtype=columns).tobytes())
                count += len(piece)
            file.seek(0)
            _write_header(file, columns, count)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp makes files that others of the machine could not read
        os.replace(name, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _write_header(file: BinaryIO, columns: np.dtype[Any], count: int) -> None:
    """Writes the header of a `.npy` file; numpy leaves room in it for the count to grow."""
    description: Any = {"descr": npy.dtype_to_descr(columns), "fortran_order": False, "shape": (count,)}
    npy.write_array_header_1_0(file, description)
