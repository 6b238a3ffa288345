"""Responses whose work stops when their client leaves: a watched wait, and server-sent events.

Knows ASGI's disconnects; knows no answers.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Coroutine
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


class EventStream(Response):
    """Server-sent events from a generator, which is closed when the client leaves.

    Args:
        events: JSON values; after the last comes `[DONE]`, as OpenAI ends streams.
        seconds: Until the client must have read it all; one that does not read must not hold a place for ever.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[dict[str, Any], None], seconds: float) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        # The first two are how servers say that the client is gone; the third cuts it off.
        with contextlib.suppress(ClientLeft, OSError, TimeoutError):
            async with asyncio.timeout(self._seconds):
                await _race(receive, self._stream(send))

    async def _stream(self, send: Send) -> None:
        async with contextlib.aclosing(self._events) as events:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for event in events:
                await send(_body(json.dumps(event)))
            await send(_body("[DONE]"))
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _body(data: str) -> dict[str, Any]:
    return {"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True}
