"""LLaVA JSON and JSON lines files of any size. Image paths are resolved, images are not opened.

Records are told apart by their brackets or lines alone, so a faulty one does not hide the others: it shows when it is
read.
"""

import codecs
import json
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from fusionvl.data.record_file import RecordFile

_LONGEST_RECORD = 64 << 20
_MAPPED = 64 << 20
_DEEPEST = 16  # levels of brackets in a record; a conversation takes three
_BLANKS = re.compile(rb"[ \t\r\n]*")

Found = Iterator[tuple[tuple[int, ...], object]]


def _balanced(depth: int) -> re.Pattern[bytes]:
    """Matches brackets with all that is between them, strings swallowed whole; knows no other rule of JSON."""
    plain, string = rb'[^"{}\[\]]*+', rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
    flat = rb"%b(?:%b%b)*+" % (plain, string, plain)
    inner = flat
    for _ in range(depth):
        inner = rb"[{\[]%b(?:%b%b)*+[}\]]" % (flat, inner, flat)
    return re.compile(inner, re.DOTALL)


_RECORD = _balanced(_DEEPEST)


class JsonFile(RecordFile):
    """The records of a LLaVA file.

    Args:
        path: the file.
        lines: whether it holds one record a line; else it holds one JSON array.
        image_folder: what image paths are relative to; by default the file's own folder.
    """

    place = ("offset", "length")

    def __init__(self, path: Path, *, lines: bool, image_folder: Path | None = None) -> None:
        super().__init__(path)
        self.lines = lines
        self.image_folder = path.parent if image_folder is None else image_folder

    def scan(self) -> Found:
        """Yields each record's place and the record, None if it is not JSON.

        Raises:
            ValueError: if the file is UTF-16, or not one whole array of records; names the file and the byte.
        """
        with self.path.open("rb") as file:
            if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise ValueError(f"{self.path}: byte 0: the file is UTF-16; convert it to UTF-8")
            if self.path.stat().st_size:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    start = len(codecs.BOM_UTF8) * (content[: len(codecs.BOM_UTF8)] == codecs.BOM_UTF8)
                    mapped = start
                    for place, record in (self._lines if self.lines else self._array)(content, start):
                        yield place, record
                        if place[0] - mapped > _MAPPED:
                            content.madvise(mmap.MADV_DONTNEED)  # what was read would count as this process's memory
                            mapped = place[0]
            elif not self.lines:
                raise ValueError(f"{self.path}: byte 0: must hold one JSON array of records, but it is empty")

    def fetch(self, *place: int) -> object:
        """Reads the record at an offset, its image being a path.

        Raises:
            ValueError: if it is not JSON in UTF-8; names the byte.
        """
        record = self.read_json(*place)
        if isinstance(record, dict) and isinstance(name := record.get("image"), str) and name.strip():
            record["image"] = self.image_folder / name
        return record

    def _lines(self, content: mmap.mmap, start: int) -> Found:
        while start < len(content):
            end = content.find(b"\n", start) + 1 or len(content)
            if end - start > _LONGEST_RECORD:
                raise self._endless(start)
            if (line := content[start:end]).strip():
                yield (start, len(line)), _decoded(line)
            start = end

    def _array(self, content: mmap.mmap, start: int) -> Found:
        position = _past_blanks(content, start)
        if content[position : position + 1] != b"[":
            hint = "; if it holds one record a line, name it .jsonl or set `kind: jsonl`"
            raise self._fault(content, position, "one JSON array of records", hint)
        position = _past_blanks(content, position + 1)
        is_over = content[position : position + 1] == b"]"
        while not is_over:
            if content[position : position + 1] not in (b"{", b"["):
                raise self._fault(content, position, "a record")
            record = _RECORD.match(content, position, position + _LONGEST_RECORD)
            if record is None:
                raise self._endless(position)
            yield (position, record.end() - position), _decoded(record[0])
            position = _past_blanks(content, record.end())
            is_over = content[position : position + 1] != b","
            if not is_over:
                position = _past_blanks(content, position + 1)
        if content[position : position + 1] != b"]":
            raise self._fault(content, position, "a comma or the array's closing ']'")
        position = _past_blanks(content, position + 1)
        if position < len(content):
            raise self._fault(content, position, "nothing after the array's end")

    def _endless(self, start: int) -> ValueError:
        return ValueError(
            f"{self.path}: not valid JSON: the record that begins at byte {start} does not end within the file, "
            f"{_LONGEST_RECORD} bytes and {_DEEPEST} levels of brackets; a quote, bracket or line break is probably "
            "missing in it"
        )

    def _fault(self, content: mmap.mmap, position: int, expected: str, hint: str = "") -> ValueError:
        found = repr(content[position : position + 40]) if position < len(content) else "the file's end"
        return ValueError(f"{self.path}: not valid JSON: byte {position}: expected {expected}, found {found}{hint}")


def _past_blanks(content: mmap.mmap, position: int) -> int:
    blanks = _BLANKS.match(content, position)
    return blanks.end() if blanks else position


def _decoded(record: bytes) -> object:
    try:
        return json.loads(record)
    except (ValueError, RecursionError):
        return None  # `fetch` says why
