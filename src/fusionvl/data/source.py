"""What every kind of data set offers: a name, a number of rows, any row as a sample, and cheap facts about rows.

Sources read from disk when asked and hold no rows in memory. They pickle without open files, so worker processes can
have them. A source knows nothing of mixtures, order or training.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fusionvl.data.llava import parse_record
from fusionvl.data.row_index import RowIndex
from fusionvl.data.sample import Sample


class Source(Protocol):
    """A data set with random access by row."""

    @property
    def name(self) -> str:
        """Names the source in samples, counts and messages."""

    def __len__(self) -> int:
        """The number of rows."""

    def read(self, row: int, *, epoch: int, seed: int) -> Sample:
        """Reads a row.

        Args:
            row: from 0 to the length, exclusive.
            epoch: the pass over the source; sources that draw their conversations draw others in another pass.
            seed: the run's seed, for the same sources.

        Raises:
            ValueError: if the row is corrupt; names the file and the row.
        """

    def lengths(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The approximate length of rows in characters, from the index alone."""

    def has_image(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether rows have an image, from the index alone; a corrupt row may have it wrong."""


class IndexedSource:
    """What sources over one indexed file share; the index has the columns `length` and `has_image`.

    Args:
        path: the file.
        name: of the source.
        index: of the file's rows.
    """

    def __init__(self, path: Path, name: str, index: RowIndex) -> None:
        self.path = path
        self.name = name
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def lengths(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The length of rows, in the unit of the index: characters, or bytes of the record."""
        return self._index.rows["length"][rows].astype(np.int64)

    def has_image(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the rows hold or name an image."""
        return np.asarray(self._index.rows["has_image"][rows])


class FileBytes:
    """Reads pieces of a file from any process. The file opens at the first read.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def read(self, offset: int, length: int) -> bytes:
        """Reads a piece. Positional, so processes that share the open file do not disturb one another.

        Raises:
            ValueError: if the file has become shorter, or cannot be read.
        """
        try:
            if self._handle is None:
                self._handle = os.open(self.path, os.O_RDONLY)
            content = os.pread(self._handle, length, offset)
        except OSError as error:
            raise ValueError(f"{self.path}: cannot read at byte {offset}: {error.strerror}") from error
        if len(content) < length:
            raise ValueError(f"{self.path}: ends before byte {offset + length}; it has changed since it was opened")
        return content

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_handle": None}

    def __del__(self) -> None:
        if self._handle is not None:
            os.close(self._handle)


def sample_with_bytes(record: object, image: bytes | None, *, row: int, name: str) -> Sample:
    """Makes a sample of a LLaVA record whose image is stored beside it as bytes.

    Args:
        record: the decoded record; what it says about the image is only compared with what is there.
        image: contents of the image file, or None.
        row: the record's row.
        name: of the source.

    Raises:
        ValueError: if the record is faulty, or names an image while no bytes are stored.
    """
    if not isinstance(record, dict):
        raise ValueError(f"record {row}: must be an object, got {type(record).__name__}")
    if image is None and record.get("image") is not None:
        raise ValueError(f"record {row}: names the image {record['image']!r}, but no image is stored with it")
    if image is not None and not image:
        raise ValueError(f"record {row}: its image is stored with 0 bytes")
    stated = {**record, "image": None if image is None else "stored"}
    sample = parse_record(stated, index=row, image_root=Path(), source=name)
    return replace(sample, image=image)
