"""LLaVA JSON and JSON lines files of any size, row by row. Image paths are resolved, images are not opened."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fusionvl.data.json_records import COLUMNS, find_array_records, find_lines
from fusionvl.data.llava import parse_record
from fusionvl.data.row_index import open_index
from fusionvl.data.sample import Sample
from fusionvl.data.source import FileBytes, IndexedSource


class LlavaSource(IndexedSource):
    """The records of a LLaVA file, through an index of byte offsets.

    Args:
        path: the file.
        name: of the source.
        lines: whether it holds one record a line; else it holds one JSON array.
        image_folder: what image paths are relative to; by default the file's own folder.
        index_folder: where the index is kept; see `open_index`.

    Raises:
        ValueError: if the file is missing, or its records cannot be told apart; names file and byte.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        lines: bool,
        image_folder: Path | None = None,
        index_folder: Path | None = None,
    ) -> None:
        find: Callable[[Path], Iterator[NDArray[Any]]] = find_lines if lines else find_array_records
        super().__init__(path, name, open_index(path, COLUMNS, lambda: find(path), folder=index_folder))
        self.image_folder = path.parent if image_folder is None else image_folder
        self._bytes = FileBytes(path)

    def read(self, row: int, *, epoch: int, seed: int) -> Sample:
        """Reads a record; epoch and seed make no difference.

        Raises:
            ValueError: if the record is faulty; names file, row and, where it is not JSON, the byte.
        """
        offset, length, _ = self._index.rows[row].item()
        content = self._bytes.read(offset, length)
        try:
            record = json.loads(content.decode("utf-8"))
        except json.JSONDecodeError as error:
            byte = offset + len(error.doc[: error.pos].encode())
            raise ValueError(f"{self.path}: record {row}: not valid JSON at byte {byte}: {error.msg}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path}: record {row}: not UTF-8 at byte {offset + error.start}") from error
        try:
            return parse_record(record, index=row, image_root=self.image_folder, source=self.name)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
