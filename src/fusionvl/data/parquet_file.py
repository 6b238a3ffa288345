"""Parquet files with image bytes: columns `id`, `conversations`, `image` (bytes, or a struct of `bytes` and `path`).

A row is read by decoding its row group, of which a few are kept; small row groups make random access fast. Needs
pyarrow, which is imported when the first such file is opened.
"""

import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fusionvl.data.extras import import_extra
from fusionvl.data.record_file import RecordFile

logger = logging.getLogger(__name__)

_GROUPS_KEPT = 4
_LARGE_GROUP = 256 << 20


class ParquetFile(RecordFile):
    """The rows of one parquet file.

    Args:
        path: the file.

    Raises:
        ModuleNotFoundError: if pyarrow is not installed; says how to install it.
    """

    place = ("group", "number")

    def __init__(self, path: Path) -> None:
        _pyarrow("pyarrow")
        super().__init__(path)

    def scan(self) -> Iterator[tuple[tuple[int, ...], object]]:
        """Yields each row's place and its conversation.

        Raises:
            ValueError: if this is no parquet file, lacks the conversations, or a row group cannot be decoded.
        """
        names = self._file.schema_arrow.names
        if "conversations" not in names:
            raise ValueError(f"{self.path}: has no column 'conversations'; its columns are {', '.join(names)}")
        for group in range(self._file.num_row_groups):
            try:
                table = self._decode(group)
            except ValueError as error:
                raise ValueError(f"{self.path}: {error}") from error
            conversations = table.column("conversations").to_pylist()
            has_image = _has_image(table) if "image" in names else [False] * len(conversations)
            for number, (talk, present) in enumerate(zip(conversations, has_image, strict=True)):
                yield (group, number), {"conversations": talk, "image": present or None}
            self._warn_if_large(group)

    def fetch(self, *place: int) -> object:
        """Reads the row at a place with the contents of its image.

        Raises:
            ValueError: if its row group cannot be decoded, or it names an image that is not there.
        """
        group, number = place
        record: dict[str, Any] = self._group(group).slice(number, 1).to_pylist()[0]
        image = record.get("image")
        if isinstance(image, dict):
            record["image"] = image.get("bytes")
            if record["image"] is None and any(value is not None for value in image.values()):
                raise ValueError(f"names the image {image}, but no image is stored with it")
        return record

    @functools.cached_property
    def _file(self) -> Any:
        try:
            return _pyarrow("pyarrow.parquet").ParquetFile(self.path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.path}: not a readable parquet file ({error})") from error

    @functools.cached_property
    def _group(self) -> Callable[[int], Any]:
        """Decodes a row group, or has it still."""
        return functools.lru_cache(_GROUPS_KEPT)(self._decode)

    def _decode(self, group: int) -> Any:
        columns = [name for name in ("id", "conversations", "image") if name in self._file.schema_arrow.names]
        try:
            return self._file.read_row_group(group, columns=columns, use_threads=False)
        except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
            raise ValueError(f"row group {group} cannot be read ({error})") from error

    def _warn_if_large(self, group: int) -> None:
        size = self._file.metadata.row_group(group).total_byte_size
        if size > _LARGE_GROUP:
            logger.warning(
                "%s: row group %d has %d MB, and reading any of its rows decodes all of it: write smaller ones "
                "(row_group_size=100 or so)",
                self.path,
                group,
                size >> 20,
            )


def _has_image(table: Any) -> list[bool]:
    """Which rows hold the contents of an image; a struct without them holds none."""
    images = table.column("image")
    if _pyarrow("pyarrow").types.is_struct(images.type) and images.type.get_field_index("bytes") >= 0:
        images = _pyarrow("pyarrow.compute").struct_field(images, "bytes")
    return list(images.is_valid().to_pylist())


def _pyarrow(module: str) -> Any:
    return import_extra(module, extra="train", needed_for="reading parquet files")
