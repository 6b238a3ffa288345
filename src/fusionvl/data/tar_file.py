"""Tar shards in the webdataset manner: `key.json` holds a LLaVA record, `key.jpg` (or .png, ...) its image.

Members of one key stand one after the other. Read at random through their offsets; nothing is unpacked.
"""

import itertools
import tarfile
from collections.abc import Iterator

from fusionvl.data.record_file import RecordFile

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"})


class TarFile(RecordFile):
    """The records of one tar shard, not compressed."""

    place = ("offset", "length", "image_offset", "image_length")

    def scan(self) -> Iterator[tuple[tuple[int, ...], object]]:
        """Yields each record's place and the record, None if it is not JSON.

        Raises:
            ValueError: if the shard is compressed, cut off, or a key has no record or several images.
        """
        for key, members in itertools.groupby(self._members(), lambda member: _name(member)[0]):
            place = self._place(key, list(members))
            try:
                record = self.read_json(*place[:2])
            except ValueError:
                record = None
            yield place, record | {"image": place[2] or None} if isinstance(record, dict) else record

    def fetch(self, *place: int) -> object:
        """Reads the record at a place with the contents of its image.

        Raises:
            ValueError: if it is not JSON, or names an image that is not there.
        """
        record = self.read_json(*place[:2])
        if not isinstance(record, dict):
            return record
        if place[2]:
            return record | {"image": self.read(*place[2:])}
        if record.get("image") is not None:
            raise ValueError(f"names the image {record['image']!r}, but no image is stored with it")
        return record

    def _place(self, key: str, members: list[tarfile.TarInfo]) -> tuple[int, ...]:
        """Offsets and lengths of a record and its image; 0 for no image, since no member begins there."""
        records = [member for member in members if _name(member)[1] == "json"]
        images = [member for member in members if _name(member)[1] in IMAGE_SUFFIXES]
        if len(records) != 1:
            names = [member.name for member in members]
            raise ValueError(f"{self.path}: {key!r} has {len(records) or 'no'} records {key}.json among {names}")
        if len(images) > 1:
            raise ValueError(f"{self.path}: {key!r} has {len(images)} images; a sample has at most one")
        own = (records[0].offset_data, records[0].size)
        return own + ((images[0].offset_data, images[0].size) if images else (0, 0))

    def _members(self) -> Iterator[tarfile.TarInfo]:
        size = self.path.stat().st_size
        try:
            with tarfile.open(self.path, "r:") as archive:
                while (member := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined] # tarfile would keep every member it has seen
                    if member.offset_data + member.size > size:
                        start = member.offset_data
                        raise ValueError(f"{self.path}: cut off in the middle of {member.name!r} at byte {start}")
                    if member.isfile():
                        yield member
        except tarfile.ReadError as error:
            raise ValueError(
                f"{self.path}: not a readable tar file ({error}); a compressed one must be unpacked"
            ) from error


def _name(member: tarfile.TarInfo) -> tuple[str, str]:
    """The key of a member, folder included, and what it is by its suffix."""
    folder, slash, base = member.name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix.lower()
