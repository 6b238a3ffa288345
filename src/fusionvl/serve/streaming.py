"""Responses whose work stops when their client leaves: a watched wait, and a body that comes piece by piece.

Knows ASGI's disconnects; knows no answers.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")


class ClientLeft(Exception):  # noqa: N818 - nobody's error
    """Nobody waits for the response any more."""


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do the work unless the client leaves first; then cancel it.

    Raises:
        ClientLeft: When it left.
    """
    return await _race(request.receive, work)


async def _race(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Streamed(Response):
    """A body that comes piece by piece from a generator, which is closed when the client leaves.

    Args:
        pieces: Of the body.
        close: Ends whatever makes the pieces, were none of them asked for.
        status: Of the response.
        headers: Of the response.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        close: Callable[[], Awaitable[None]],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status_code=status, headers={"X-Accel-Buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._pieces = pieces
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces."""
        try:
            with contextlib.suppress(ClientLeft, OSError):  # both are how servers say that the client is gone
                await _race(receive, self._send(send))
        finally:
            await self._close()

    async def _send(self, send: Send) -> None:
        async with contextlib.aclosing(self._pieces) as pieces:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def event_stream(events: AsyncGenerator[dict[str, Any], None]) -> Streamed:
    """JSON values as server-sent events; after the last comes `[DONE]`, as OpenAI ends streams."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        async for event in events:
            yield as_event(event)
        yield b"data: [DONE]\n\n"

    return Streamed(
        pieces(), events.aclose, headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    )


def as_event(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(value)}\n\n".encode()
