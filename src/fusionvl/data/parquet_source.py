"""Parquet files with image bytes: columns `id`, `conversations`, `image` (bytes, or a struct of `bytes` and `path`).

A row is read by decoding its row group, of which a few are kept; small row groups make random access fast. Needs
pyarrow, which is imported when the first such file is opened.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fusionvl.data.extras import import_extra
from fusionvl.data.row_index import open_index
from fusionvl.data.sample import Sample
from fusionvl.data.source import IndexedSource, sample_with_bytes

logger = logging.getLogger(__name__)

_COLUMNS = np.dtype([("group", "<u4"), ("place", "<u4"), ("length", "<u4"), ("has_image", "?")])
_GROUPS_KEPT = 4
_LARGE_GROUP = 256 << 20


class ParquetSource(IndexedSource):
    """The rows of one parquet file.

    Args:
        path: the file.
        name: of the source.
        index_folder: where the index is kept; see `open_index`.

    Raises:
        ModuleNotFoundError: if pyarrow is not installed; says how to install it.
        ValueError: if the file is missing, no parquet file, or lacks a column.
    """

    def __init__(self, path: Path, *, name: str, index_folder: Path | None = None) -> None:
        _pyarrow("pyarrow")
        super().__init__(path, name, open_index(path, _COLUMNS, lambda: _find_rows(path), folder=index_folder))
        self._groups = _RowGroups(path)

    def read(self, row: int, *, epoch: int, seed: int) -> Sample:
        """Reads a row with the bytes of its image; epoch and seed make no difference.

        Raises:
            ValueError: if the row is faulty or its row group cannot be decoded; names file and row.
        """
        group, place, _, _ = self._index.rows[row].item()
        try:
            record: dict[str, Any] = self._groups.read(group).slice(place, 1).to_pylist()[0]
            image = record.pop("image", None)
            if isinstance(image, dict):
                image = image.get("bytes")
            return sample_with_bytes(record, image, row=row, name=self.name)
        except OSError as error:
            raise ValueError(f"{self.path}: record {row}: row group {group} cannot be read ({error})") from error
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error


class _RowGroups:
    """Decodes row groups and keeps the last few. Pickles as the path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None
        self._kept: dict[int, Any] = {}

    def read(self, group: int) -> Any:
        """Returns the `pyarrow.Table` of a row group."""
        if group not in self._kept:
            if self._file is None:
                self._file = _open(self.path)
            columns = [name for name in ("id", "conversations", "image") if name in self._file.schema_arrow.names]
            table = self._file.read_row_group(group, columns=columns, use_threads=False)
            while len(self._kept) >= _GROUPS_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[group] = table
        return self._kept[group]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_file": None, "_kept": {}}


def _find_rows(path: Path) -> Iterator[NDArray[Any]]:
    file = _open(path)
    _check_columns(path, file.schema_arrow)
    for group in tqdm(range(file.num_row_groups), desc=f"Indexing {path.name}", delay=2, leave=False):
        try:
            lengths, has_image = _conversation_lengths(file, group), _has_image(file, group)
        except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
            raise ValueError(f"{path}: row group {group} cannot be read ({error})") from error
        rows = np.zeros(len(lengths), dtype=_COLUMNS)
        rows["group"] = group
        rows["place"] = np.arange(len(lengths))
        rows["length"] = lengths
        rows["has_image"] = has_image
        yield rows
        _warn_if_large(path, group, file.metadata.row_group(group).total_byte_size)


def _warn_if_large(path: Path, group: int, size: int) -> None:
    if size > _LARGE_GROUP:
        logger.warning(
            "%s: row group %d has %d MB, and reading any of its rows decodes all of it: write smaller ones "
            "(row_group_size=100 or so)",
            path,
            group,
            size >> 20,
        )


def _open(path: Path) -> Any:
    try:
        return _pyarrow("pyarrow.parquet").ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise ValueError(f"{path}: not a readable parquet file ({error})") from error


def _check_columns(path: Path, schema: Any) -> None:
    types = _pyarrow("pyarrow").types
    if "conversations" not in schema.names:
        raise ValueError(f"{path}: has no column 'conversations'; its columns are {', '.join(schema.names)}")
    conversations = schema.field("conversations").type
    is_list = types.is_list(conversations) or types.is_large_list(conversations)
    if not is_list or not types.is_struct(conversations.value_type):
        raise ValueError(
            f"{path}: 'conversations' must be a list of structs of 'from' and 'value', not {conversations}"
        )
    if not {"from", "value"} <= {entry.name for entry in conversations.value_type}:
        raise ValueError(f"{path}: 'conversations' must hold 'from' and 'value', not {conversations.value_type}")
    if "image" in schema.names and _image_leaf(schema) is None:
        image = schema.field("image").type
        raise ValueError(f"{path}: 'image' must be bytes, or a struct with 'bytes', not {image}")


def _image_leaf(schema: Any) -> str | None:
    """The column that holds the bytes themselves."""
    types = _pyarrow("pyarrow").types
    image = schema.field("image").type
    if types.is_struct(image):
        return "image.bytes" if image.get_field_index("bytes") >= 0 else None
    return "image" if types.is_binary(image) or types.is_large_binary(image) else None


def _conversation_lengths(file: Any, group: int) -> NDArray[np.int64]:
    compute = _pyarrow("pyarrow.compute")
    column = file.read_row_group(group, columns=["conversations"], use_threads=False).column(0)
    values = compute.struct_field(compute.list_flatten(column), "value")
    characters = compute.fill_null(compute.utf8_length(values), 0).to_numpy().astype(np.int64)
    counts = compute.fill_null(compute.list_value_length(column), 0).to_numpy().astype(np.int64)
    before = np.concatenate(([0], np.cumsum(characters)))
    ends = np.cumsum(counts)
    return before[ends] - before[ends - counts]


def _has_image(file: Any, group: int) -> NDArray[np.bool_] | bool:
    """Looks at the images themselves only where the file's own statistics leave it open."""
    if "image" not in file.schema_arrow.names:
        return False
    leaf = _image_leaf(file.schema_arrow)
    metadata = file.metadata.row_group(group)
    for number in range(metadata.num_columns):
        column = metadata.column(number)
        statistics = column.statistics if column.path_in_schema == leaf else None
        if statistics is not None and statistics.has_null_count and statistics.null_count in (0, metadata.num_rows):
            return bool(statistics.null_count == 0)
    images = file.read_row_group(group, columns=[leaf], use_threads=False).column(0)
    if leaf == "image.bytes":
        images = _pyarrow("pyarrow.compute").struct_field(images, "bytes")
    return np.asarray(images.is_valid())


def _pyarrow(module: str) -> Any:
    return import_extra(module, extra="train", needed_for="reading parquet files")
