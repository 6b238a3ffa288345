"""Work that stops when its client leaves: a watched wait, and answers as server-sent events.

Knows ASGI's disconnects; knows no answers.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable
from typing import Any, TypeVar

from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse

from fusionvl.serve.errors import ApiError

T = TypeVar("T")
UNBUFFERED = {"X-Accel-Buffering": "no"}


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Do the work unless the client leaves first; then cancel it.

    Raises:
        ClientDisconnect: When it left.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def event_stream(request: Request, values: AsyncGenerator[dict[str, Any], None]) -> StreamingResponse:
    """JSON values as server-sent events; after the last comes `[DONE]`, as OpenAI ends streams.

    Returns when the first value is there, so that refusals still have their status; a later one is the last event.

    Args:
        request: Whose client waits.
        values: At least one; they are closed when the client leaves.

    Raises:
        ApiError: Of the first value.
        ClientDisconnect: When the client left before it.
    """
    first = await while_connected(request, anext(values))

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield as_event(first)
        try:
            async for value in values:
                yield as_event(value)
        except ApiError as error:
            yield as_event(error.body())
        yield b"data: [DONE]\n\n"

    async def close() -> None:
        await values.aclose()  # `pieces` cannot, when the client left before it began

    headers = {**UNBUFFERED, "Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    return StreamingResponse(pieces(), headers=headers, background=BackgroundTask(close))


def as_event(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(value)}\n\n".encode()
