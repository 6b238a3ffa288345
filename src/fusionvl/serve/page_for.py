"""The page in front of another OpenAI-compatible server, vLLM for instance: no model here, questions are passed on.

Knows HTTP on both sides; knows nothing of what passes.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from fusionvl.serve.app import guarded, health
from fusionvl.serve.errors import ApiError
from fusionvl.serve.settings import ServerSettings
from fusionvl.serve.streaming import UNBUFFERED, as_event, while_connected

_SENT_ON = ("authorization", "content-type", "accept")
_SENT_BACK = ("content-type", "retry-after", "www-authenticate", "cache-control")
_CONNECT_SECONDS = 10.0


def create_page_for(url: str, settings: ServerSettings) -> Starlette:
    """Build an application that serves the page and passes its questions on.

    Args:
        url: Of the server that answers, as `server_root` returns it.
        settings: Host names, limits; the key is the other server's to ask for.
    """
    times = httpx.Timeout(_CONNECT_SECONDS, read=settings.limits.answer_seconds)
    everywhere = httpx.Limits(max_connections=None)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with httpx.AsyncClient(base_url=url, timeout=times, limits=everywhere) as app.state.upstream:
            yield

    return guarded(_ROUTES, settings, lifespan)


async def _pass_on(request: Request) -> Response:
    content = await request.body()
    return await while_connected(request, _passed_on(request, content))


async def _passed_on(request: Request, content: bytes) -> Response:
    upstream: httpx.AsyncClient = request.app.state.upstream
    headers = {name: request.headers[name] for name in _SENT_ON if name in request.headers}
    asked = upstream.build_request(
        request.method, request.url.path, content=content, headers={**headers, "Accept-Encoding": "identity"}
    )
    try:
        answer = await upstream.send(asked, stream=True)
    except httpx.HTTPError as error:
        raise _unavailable() from error
    told = UNBUFFERED | {name: answer.headers[name] for name in _SENT_BACK if name in answer.headers}
    return StreamingResponse(_pieces(answer), answer.status_code, told, background=BackgroundTask(answer.aclose))


async def _pieces(answer: httpx.Response) -> AsyncGenerator[bytes, None]:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    except httpx.HTTPError:
        yield as_event(_unavailable().body())  # of a stream it is the last event; anything else is broken anyway


def _unavailable() -> ApiError:
    return ApiError("model_unavailable", "The server behind this page does not answer: try again later", None, 5)


_ROUTES = (
    Route("/v1/chat/completions", _pass_on, methods=["POST"]),
    Route("/v1/models", _pass_on),
    Route("/health", health),
)
