"""What a file of LLaVA records has to know for `FileSource` to do the rest: where records are, and how to read one.

Knows bytes and JSON, and nothing of what they stand for.
"""

import functools
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar


class Reopened:
    """Pickles without what its cached properties hold: another process opens its own."""

    def __getstate__(self) -> dict[str, Any]:
        kind = type(self)
        return {
            name: value
            for name, value in vars(self).items()
            if not isinstance(getattr(kind, name, None), functools.cached_property)
        }


class RecordFile(Reopened, ABC):
    """A file of records, which opens at the first read.

    Args:
        path: the file.
    """

    place: ClassVar[tuple[str, ...]]
    """What the numbers are called that say where a record is."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def scan(self) -> Iterator[tuple[tuple[int, ...], object]]:
        """Yields each record's place, and the record decoded: None if it is not JSON, anything for its image.

        Raises:
            ValueError: if the records cannot be told apart; names the file.
        """

    @abstractmethod
    def fetch(self, *place: int) -> object:
        """Reads the record at a place, its `image` being a path or the contents of an image file.

        Raises:
            ValueError: if it cannot be decoded.
        """

    def read(self, offset: int, length: int) -> bytes:
        """Reads a piece. Positional, so processes that share the open file do not disturb one another.

        Raises:
            ValueError: if the file has become shorter, or cannot be read.
        """
        try:
            content = os.pread(self._handle, length, offset)
        except OSError as error:
            raise ValueError(f"cannot read {self.path} at byte {offset}: {error.strerror}") from error
        if len(content) < length:
            raise ValueError(f"{self.path} ends before byte {offset + length}; it has changed since it was opened")
        return content

    def read_json(self, offset: int, length: int) -> Any:
        """Decodes a piece.

        Raises:
            ValueError: if it cannot be read, or is not JSON in UTF-8; names the byte of the file.
        """
        content = self.read(offset, length)
        try:
            return json.loads(content.decode())
        except json.JSONDecodeError as error:
            byte = offset + len(error.doc[: error.pos].encode())
            raise ValueError(f"not valid JSON at byte {byte}: {error.msg}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 at byte {offset + error.start}") from error
        except RecursionError as error:
            raise ValueError(f"nested too deeply, from byte {offset} on") from error

    @functools.cached_property
    def _handle(self) -> int:
        return os.open(self.path, os.O_RDONLY)

    def __del__(self) -> None:
        if "_handle" in vars(self):
            os.close(self._handle)
