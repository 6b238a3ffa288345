"""Files of LLaVA records as one source, through their indexes: rows in the files' order. Knows no kind of file."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusionvl.data.llava import read_row
from fusionvl.data.record_file import RecordFile
from fusionvl.data.row_index import open_index
from fusionvl.data.sample import Sample
from fusionvl.data.source import Shapes, gather_shapes
from fusionvl.run_folder import fingerprint


class FileSource:
    """The records of one file or several (say, all shards of a data set).

    Args:
        name: of the source.
        files: at least one.
        index_folder: where indexes are kept; see `open_index`.

    Raises:
        ValueError: if there are no files, one is missing, or its records cannot be told apart.
    """

    def __init__(self, name: str, files: Sequence[RecordFile], *, index_folder: Path | None = None) -> None:
        if not files:
            raise ValueError(f"{name}: no files")
        self.name = name
        self.files = tuple(files)
        self._indexes = [open_index(file, folder=index_folder) for file in files]
        self._starts = np.cumsum([0, *map(len, self._indexes)])

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the contents of all files."""
        return fingerprint([index.fingerprint for index in self._indexes])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, row: int, *, epoch: int, seed: int) -> Sample:
        """Reads a record; epoch and seed make no difference.

        Raises:
            ValueError: if the record is faulty; names the file, the file's own row and the fault.
        """
        number = int(self._owners(np.array([row]))[0])
        own = row - int(self._starts[number])
        return read_row(self.files[number], self._indexes[number].place(own), row=own, source=self.name)

    def shapes(self, rows: NDArray[np.int64]) -> Shapes:
        """Characters, turns and presence of an image, as the indexes have them."""
        owners = self._owners(rows)
        return gather_shapes(
            owners, lambda number, own: self._indexes[number].shapes(rows[own] - self._starts[number])
        )

    def _owners(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the file that holds each row."""
        return np.searchsorted(self._starts, rows, side="right") - 1
