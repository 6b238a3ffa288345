"""One client's connection: HTTP by uvicorn and h11, with a bound on every wait and on the number of connections.

Knows sockets and their timers; knows no requests.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_FILES_KEPT = 48  # for what is no connection of a client: weights, images that are fetched, the event loop's own
_FEW_FILES = 1024  # where a system does not tell
_MOST = 512
_MOST_AT_ONCE = 128


@dataclass(frozen=True)
class ConnectionLimits:
    """What connections may take; beyond each they are closed without a word.

    Attributes:
        most: At a time.
        at_once: Accepted in one turn of the event loop, before any of them can be closed.
        head_seconds: Until a request's head must have come; counts from the end of the answer before.
        stall_seconds: That a client may leave its answer unread.
    """

    most: int = _MOST
    at_once: int = _MOST_AT_ONCE
    head_seconds: float = 10.0
    stall_seconds: float = 30.0

    @classmethod
    def of_process(cls) -> "ConnectionLimits":
        """As many as the process may open files for; the rest are for itself."""
        spare = max(_open_files() - _FILES_KEPT, 3)
        return cls(most=min(_MOST, spare * 2 // 3), at_once=min(_MOST_AT_ONCE, spare // 3))


def _open_files() -> int:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return _FEW_FILES
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _FEW_FILES if soft == resource.RLIM_INFINITY else soft


class Connection(H11Protocol):
    """uvicorn's own, which waits for ever for a head that does not come, and for a client that does not read.

    Args:
        limits: Of connections.
        **uvicorns: What uvicorn passes.
    """

    def __init__(self, *, limits: ConnectionLimits, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._limits = limits
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Begin, or close at once when there are too many."""
        if len(self.connections) >= self._limits.most:
            transport.abort()
            return
        super().connection_made(transport)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop("head")
        self._stop("stall")
        if self.transport is not None:  # else it never began
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client."""
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch_head()

    def pause_writing(self) -> None:
        """The client does not read what it is sent."""
        super().pause_writing()
        self._abort_in(self._limits.stall_seconds, "stall")

    def resume_writing(self) -> None:
        """It reads again."""
        self._stop("stall")
        super().resume_writing()

    def _watch_head(self) -> None:
        """Bound the wait for a head, half of one included; nothing that comes short of a whole one lengthens it."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop("head")
        elif "head" not in self._timers:
            self._abort_in(self._limits.head_seconds, "head")

    def _abort_in(self, seconds: float, why: str) -> None:
        # Not `close`, which waits until everything is read.
        self._timers[why] = self.loop.call_later(seconds, self.transport.abort)

    def _stop(self, why: str) -> None:
        if (timer := self._timers.pop(why, None)) is not None:
            timer.cancel()
