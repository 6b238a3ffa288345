"""Tar shards in the webdataset manner: `key.json` holds a LLaVA record, `key.jpg` (or .png, ...) its image.

Members of one key stand one after the other. Read at random through an index of byte offsets; nothing is unpacked.
"""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fusionvl.data.row_index import open_index
from fusionvl.data.sample import Sample
from fusionvl.data.source import FileBytes, IndexedSource, sample_with_bytes

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"})

_COLUMNS = np.dtype(
    [("offset", "<i8"), ("length", "<u4"), ("image_offset", "<i8"), ("image_length", "<u4"), ("has_image", "?")]
)
_PIECE_ROWS = 8192


class TarSource(IndexedSource):
    """The samples of one tar shard.

    Args:
        path: the shard, not compressed.
        name: of the source.
        index_folder: where the index is kept; see `open_index`.

    Raises:
        ValueError: if the shard is missing, compressed, cut off, or a key has no record or several images.
    """

    def __init__(self, path: Path, *, name: str, index_folder: Path | None = None) -> None:
        super().__init__(path, name, open_index(path, _COLUMNS, lambda: _find_samples(path), folder=index_folder))
        self._bytes = FileBytes(path)

    def read(self, row: int, *, epoch: int, seed: int) -> Sample:
        """Reads a sample with the bytes of its image; epoch and seed make no difference.

        Raises:
            ValueError: if the record is faulty; names shard and row.
        """
        offset, length, image_offset, image_length, has_image = self._index.rows[row].item()
        try:
            record = json.loads(self._bytes.read(offset, length))
        except ValueError as error:  # not JSON, or not UTF-8
            raise ValueError(f"{self.path}: record {row}: not valid JSON near byte {offset}: {error}") from error
        image = self._bytes.read(image_offset, image_length) if has_image else None
        try:
            return sample_with_bytes(record, image, row=row, name=self.name)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error


def _find_samples(path: Path) -> Iterator[NDArray[Any]]:
    rows: list[tuple[int, int, int, int, bool]] = []
    for key, members in _by_key(path):
        rows.append(_row(path, key, members))
        if len(rows) == _PIECE_ROWS:
            yield np.array(rows, dtype=_COLUMNS)
            rows = []
    yield np.array(rows, dtype=_COLUMNS)


def _by_key(path: Path) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Yields each key with its members by suffix."""
    current, members = "", dict[str, tarfile.TarInfo]()
    for member in _members(path):
        folder, slash, base = member.name.rpartition("/")
        stem, _, suffix = base.partition(".")
        key = folder + slash + stem
        if key != current and members:
            yield current, members
            members = {}
        current = key
        members[suffix.lower()] = member
    if members:
        yield current, members


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    size = path.stat().st_size
    try:
        with (
            tarfile.open(path, "r:") as archive,
            tqdm(total=size, unit="B", unit_scale=True, desc=f"Indexing {path.name}", delay=2, leave=False) as bar,
        ):
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined] # tarfile would keep every member it has seen
                end = member.offset_data + member.size
                if end > size:
                    raise ValueError(f"{path}: cut off in the middle of {member.name!r} at byte {member.offset_data}")
                bar.update(end - bar.n)
                if member.isfile():
                    yield member
    except tarfile.ReadError as error:
        raise ValueError(f"{path}: not a readable tar file ({error}); a compressed one must be unpacked") from error


def _row(path: Path, key: str, members: dict[str, tarfile.TarInfo]) -> tuple[int, int, int, int, bool]:
    record = members.get("json")
    if record is None:
        raise ValueError(f"{path}: {key!r} has no record {key}.json beside {sorted(members)}")
    images = [member for suffix, member in members.items() if suffix in IMAGE_SUFFIXES]
    if len(images) > 1:
        raise ValueError(f"{path}: {key!r} has {len(images)} images; a sample has at most one")
    if not images:
        return record.offset_data, record.size, 0, 0, False
    return record.offset_data, record.size, images[0].offset_data, images[0].size, True
