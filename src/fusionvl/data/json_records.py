"""Finds the records of JSON files without decoding them: byte offsets in one pass over files of any size.

Two forms: JSON lines, and one array of objects. Knows strings, escapes and nesting, and no more: whether a record is
valid JSON shows when it is read. Memory is one piece of the file, whatever the file's size.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

COLUMNS = np.dtype([("offset", "<i8"), ("length", "<u4"), ("has_image", "?")])
"""A record's place in the file, and whether it names an image."""

_PIECE_BYTES = 4 << 20
_LONGEST_RECORD = 64 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OTHER_ENCODINGS = (b"\xff\xfe", b"\xfe\xff")
_WHITESPACE = b" \t\r\n"
# A quote inside a string is escaped, so this can only be a key.
_IMAGE_KEY = re.compile(rb'"image"[ \t\r\n]*:[ \t\r\n]*(?!null)[^ \t\r\n]')

_QUOTE, _BACKSLASH, _NEWLINE = b'"\\\n'
_OPENING, _CLOSING = tuple(b"{["), tuple(b"}]")
# For bytes.translate, which looks bytes up several times faster than numpy does.
_IS_STRUCTURE = bytes(byte in (_QUOTE, _BACKSLASH, *_OPENING, *_CLOSING) for byte in range(256))
_STEP = np.zeros(256, dtype=np.int8)
_STEP[list(_OPENING)] = 1
_STEP[list(_CLOSING)] = -1


class _Spans(NamedTuple):
    """Records within a piece, and where the array ends in it (None: later)."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    array_end: int | None


def find_lines(path: Path) -> Iterator[NDArray[Any]]:
    """Finds the records of a JSON lines file: its lines, without blank ones.

    Yields:
        Pieces of the table, with `COLUMNS`.

    Raises:
        ValueError: if the file is not UTF-8, or a line is absurdly long; names the file and the byte.
    """
    with path.open("rb") as file, _progress(path) as bar:
        offset = _start(file, path)
        rest = b""
        while piece := file.read(_PIECE_BYTES):
            bar.update(len(piece))
            buffer = rest + piece
            cut = buffer.rfind(b"\n") + 1
            yield _table(buffer, _lines(buffer[:cut]), offset)
            rest, offset = buffer[cut:], offset + cut
            _check_length(rest, path, offset, "line break")
        if rest:
            yield _table(rest, _lines(rest + b"\n"), offset)


def find_array_records(path: Path) -> Iterator[NDArray[Any]]:
    """Finds the records of a JSON file that holds one array.

    Yields:
        Pieces of the table, with `COLUMNS`.

    Raises:
        ValueError: if the file is not one whole array of objects; names the file and the byte.
    """
    with path.open("rb") as file, _progress(path) as bar:
        offset = _open_array(file, path)
        bar.update(offset)
        rest, array_end, is_first = b"", None, True
        while array_end is None:
            piece = file.read(_PIECE_BYTES)
            if not piece:
                raise ValueError(_ends_early(path, rest, offset))
            bar.update(len(piece))
            buffer = rest + piece
            spans = _array_records(buffer)
            _check_gaps(buffer, spans, is_first, path, offset)
            yield _table(buffer, spans, offset)
            is_first = is_first and not len(spans.starts)
            cut = int(spans.ends[-1]) if len(spans.ends) else 0
            array_end = spans.array_end
            rest, offset = buffer[cut:], offset + cut
            _check_length(rest, path, offset, "quote or bracket")
        _check_nothing_follows(file, rest[array_end - cut + 1 :], path, offset + array_end - cut + 1)


def _progress(path: Path) -> "tqdm[Any]":
    size = path.stat().st_size
    return tqdm(total=size, unit="B", unit_scale=True, desc=f"Indexing {path.name}", delay=2, leave=False)


def _start(file: BinaryIO, path: Path) -> int:
    """Skips a byte order mark; returns where the text begins."""
    head = file.read(len(_BYTE_ORDER_MARK))
    if head.startswith(_OTHER_ENCODINGS):
        raise ValueError(f"{path}: byte 0: the file is UTF-16; convert it to UTF-8")
    offset = len(head) if head == _BYTE_ORDER_MARK else 0
    file.seek(offset)
    return offset


def _open_array(file: BinaryIO, path: Path) -> int:
    """Returns where the array's contents begin."""
    offset = _start(file, path)
    while (byte := file.read(1)) and byte in _WHITESPACE:
        offset += 1
    if byte != b"[":
        hint = "; if it holds one record a line, name it .jsonl or set `kind: jsonl`" if byte == b"{" else ""
        found = f"it begins with {byte!r}" if byte else "it is empty"
        raise ValueError(f"{path}: byte {offset}: must hold one JSON array of records, but {found}{hint}")
    return offset + 1


def _lines(buffer: bytes) -> _Spans:
    ends = np.flatnonzero(np.frombuffer(buffer, np.uint8) == _NEWLINE)
    starts = np.concatenate(([0], ends + 1))[: len(ends)]
    first_bytes = np.frombuffer(buffer, np.uint8)[starts]
    # Only a line that begins with whitespace can be blank.
    for index in np.flatnonzero(np.isin(first_bytes, list(_WHITESPACE))):
        if not buffer[starts[index] : ends[index]].strip(_WHITESPACE):
            ends[index] = starts[index]
    kept = ends > starts
    return _Spans(starts[kept], ends[kept], None)


def _array_records(buffer: bytes) -> _Spans:
    """Finds the whole records of a piece that begins inside the array and outside of any record."""
    data = np.frombuffer(buffer, np.uint8)
    places = np.flatnonzero(np.frombuffer(buffer.translate(_IS_STRUCTURE), bool))
    kinds = data[places]
    is_quote = (kinds == _QUOTE) & ~_is_escaped(places, kinds)
    outside = ~np.logical_xor.accumulate(is_quote) if len(places) else is_quote
    steps = _STEP[kinds]
    structural = outside & (steps != 0)
    places, steps = places[structural], steps[structural]
    depth = np.cumsum(steps, dtype=np.int64)
    closed = np.flatnonzero(depth < 0)
    array_end = int(places[closed[0]]) if len(closed) else None
    if len(closed):
        places, steps, depth = places[: closed[0]], steps[: closed[0]], depth[: closed[0]]
    starts = places[(steps == 1) & (depth == 1)]
    ends = places[(steps == -1) & (depth == 0)] + 1
    return _Spans(starts[: len(ends)], ends, array_end)


def _is_escaped(places: NDArray[np.int64], kinds: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which structural bytes directly follow an odd number of backslashes."""
    is_backslash = kinds == _BACKSLASH
    escaped = np.zeros(len(places), dtype=bool)
    if not is_backslash.any():
        return escaped
    follows = np.zeros(len(places), dtype=bool)  # directly behind a backslash
    follows[1:] = is_backslash[:-1] & (np.diff(places) == 1)
    index = np.arange(len(places))
    run_start = np.maximum.accumulate(np.where(is_backslash & ~follows, index, 0))
    odd_run = (index - run_start) % 2 == 0  # counted up to and with a backslash
    escaped[1:] = follows[1:] & odd_run[:-1]
    return escaped


def _check_gaps(buffer: bytes, spans: _Spans, is_first: bool, path: Path, offset: int) -> None:
    """Between two records there is one comma and nothing else."""
    position = 0
    allowed = b"" if is_first else b","
    for start, end in zip(spans.starts.tolist(), spans.ends.tolist(), strict=True):
        gap = buffer[position:start]
        if gap.strip(_WHITESPACE) != allowed:
            raise ValueError(_misplaced(path, gap, offset + position, allowed))
        position, allowed = end, b","
    if spans.array_end is not None and (gap := buffer[position : spans.array_end]).strip(_WHITESPACE):
        raise ValueError(_misplaced(path, gap, offset + position, b""))
    if spans.array_end is not None and buffer[spans.array_end : spans.array_end + 1] != b"]":
        raise ValueError(f"{path}: byte {offset + spans.array_end}: found '}}' where the array should end with ']'")


def _misplaced(path: Path, gap: bytes, offset: int, allowed: bytes) -> str:
    expected = "a comma" if allowed else "nothing"
    return f"{path}: not valid JSON: expected {expected} before byte {offset + len(gap)}, found {gap[-80:]!r}"


def _check_length(rest: bytes, path: Path, offset: int, missing: str) -> None:
    if len(rest) > _LONGEST_RECORD:
        raise ValueError(
            f"{path}: the record that begins at byte {offset} is longer than {_LONGEST_RECORD} bytes: "
            f"a {missing} is probably missing in it"
        )


def _ends_early(path: Path, rest: bytes, offset: int) -> str:
    body = rest.lstrip(_WHITESPACE + b",")
    if not body:
        return f"{path}: not valid JSON: the file ends at byte {offset + len(rest)} without the array's closing ']'"
    start = offset + len(rest) - len(body)
    return f"{path}: not valid JSON: the file ends in the middle of the record that begins at byte {start}"


def _check_nothing_follows(file: BinaryIO, tail: bytes, path: Path, offset: int) -> None:
    while True:
        if body := tail.lstrip(_WHITESPACE):
            start = offset + len(tail) - len(body)
            raise ValueError(f"{path}: not valid JSON: byte {start}: {body[:40]!r} follows the end of the array")
        offset += len(tail)
        tail = file.read(_PIECE_BYTES)
        if not tail:
            return


def _table(buffer: bytes, spans: _Spans, offset: int) -> NDArray[Any]:
    table = np.zeros(len(spans.starts), dtype=COLUMNS)
    table["offset"] = spans.starts + offset
    table["length"] = spans.ends - spans.starts
    if len(table):
        keys = np.fromiter((match.start() for match in _IMAGE_KEY.finditer(buffer)), dtype=np.int64)
        keys = keys[keys < spans.ends[-1]]
        table["has_image"][np.searchsorted(spans.starts, keys, side="right") - 1] = True
    return table
