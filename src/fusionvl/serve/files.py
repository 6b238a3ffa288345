"""Uploaded images, for requests to name by id. They live in memory: no name from outside meets a file system.

Bounded in bytes, age and owner: a key sees its own files only. Knows bytes and clocks; knows no HTTP.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fusionvl.serve.errors import ApiError
from fusionvl.serve.settings import Limits

_MOST_FILES = 10_000


@dataclass(frozen=True)
class StoredFile:
    """One uploaded image.

    Attributes:
        owner: Which client's it is.
        content: Encoded.
        media_type: As its bytes say.
        filename: As its owner calls it; only ever shown to the owner.
        created, expires: Seconds since 1970.
        id: Random.
    """

    owner: str
    content: bytes = field(repr=False)
    media_type: str
    filename: str
    created: float
    expires: float
    purpose: str = "vision"
    id: str = field(default_factory=lambda: f"file-{secrets.token_hex(16)}")

    def as_json(self) -> dict[str, Any]:
        """As OpenAI writes it."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": int(self.created),
            "expires_at": int(self.expires),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        }


class FileStore:
    """Keeps uploaded images until they are deleted or too old.

    Its methods are coroutines because on a cluster it is elsewhere (`backend.Files`).

    Args:
        limits: Bytes and age.
        clock: Seconds since 1970.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.time) -> None:
        self._limits = limits
        self._clock = clock
        self._files: OrderedDict[str, StoredFile] = OrderedDict()
        self.num_bytes = 0

    async def add(self, owner: str, content: bytes, media_type: str, filename: str, purpose: str) -> StoredFile:
        """Keep an image.

        Raises:
            ApiError: When there is no room for it.
        """
        self._forget_old()
        bound = self._limits.file_bytes
        if self.num_bytes + len(content) > bound or len(self._files) >= _MOST_FILES:
            raise ApiError(
                "storage_full",
                f"{len(self._files)} files take {self.num_bytes} of {bound} bytes: delete some, or send the image "
                f"with the request",
            )
        now = self._clock()
        file = StoredFile(
            owner, content, media_type, filename[:255], now, now + self._limits.file_seconds, purpose=purpose
        )
        self._files[file.id] = file
        self.num_bytes += len(content)
        return file

    async def get(self, owner: str, file_id: str, param: str | None = None) -> StoredFile:
        """A client's own file.

        Raises:
            ApiError: When there is none of this id; another's file is none.
        """
        self._forget_old()
        file = self._files.get(file_id)
        if file is None or file.owner != owner:
            raise ApiError("file_not_found", f"There is no file {file_id[:60]!r}: upload it again", param)
        return file

    async def list(self, owner: str) -> list[StoredFile]:
        """A client's files, newest first."""
        self._forget_old()
        return [file for file in reversed(self._files.values()) if file.owner == owner]

    async def delete(self, owner: str, file_id: str) -> None:
        """Forget a client's own file.

        Raises:
            ApiError: As `get`.
        """
        self._drop(await self.get(owner, file_id))

    def _forget_old(self) -> None:
        now = self._clock()
        while self._files and (oldest := next(iter(self._files.values()))).expires <= now:
            self._drop(oldest)

    def _drop(self, file: StoredFile) -> None:
        del self._files[file.id]
        self.num_bytes -= len(file.content)
