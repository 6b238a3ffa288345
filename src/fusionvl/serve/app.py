"""The application: endpoints wired to what answers them. Knows paths; everything else is in the modules beside it.

app = create_app("nano", load, ServerSettings())
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from fusionvl import __version__
from fusionvl.serve.chat import Chat
from fusionvl.serve.errors import ApiError, refuse
from fusionvl.serve.fetching import ImageFetcher
from fusionvl.serve.gate import Gate
from fusionvl.serve.images import ImageReader
from fusionvl.serve.pages import page_routes
from fusionvl.serve.protocol import ChatRequest, parse
from fusionvl.serve.settings import ServerSettings
from fusionvl.serve.streaming import event_stream, while_connected
from fusionvl.serve.waiting_line import WaitingLine

_CLIENT_LEFT = 499  # as nginx writes it down; nobody reads it


def create_app(
    model: str, load: Callable[[], Any], settings: ServerSettings, fetcher: ImageFetcher | None = None
) -> Starlette:
    """Build the application; the model is loaded when it starts.

    Args:
        model: Its name in requests.
        load: Loads it: something with the `events` of `FusionEngine`.
        settings: Key, host names, limits.
        fetcher: For images by URL; None is one as the settings want it.
    """
    limits = settings.limits
    line = WaitingLine(load, limits.waiting)
    fetcher = fetcher or ImageFetcher(limits, settings.allow_private_networks)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        line.start()
        yield
        line.close()

    app = guarded(ROUTES, settings, lifespan, line)
    app.state.model = model
    app.state.chat = Chat(model, line, ImageReader(limits, fetcher), limits)
    return app


def guarded(
    routes: Sequence[BaseRoute], settings: ServerSettings, lifespan: Any, line: WaitingLine | None = None
) -> Starlette:
    """An application behind the gate, with the page, and with errors in the one shape; `line` if it has a model."""
    app = Starlette(
        routes=[*routes, *page_routes()],
        lifespan=lifespan,
        middleware=[Middleware(Gate, settings=settings)],
        exception_handlers={HTTPException: refuse, Exception: refuse, ClientDisconnect: _gone},
    )
    app.router.redirect_slashes = False  # a redirect has no error shape
    app.state.line = line
    app.state.draining = asyncio.Event()
    return app


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_LEFT)


async def chat_completions(request: Request) -> Response:
    """Answer a conversation about an image, in one piece or as a stream."""
    asked, chat = parse(await request.body()), request.app.state.chat
    if asked.stream:
        return await event_stream(request, chat.stream(asked))
    return JSONResponse(await while_connected(request, chat.complete(asked)))


async def explain(request: Request) -> Response:
    """Where the model looked for one question about one image, and what the question changed; ours, not OpenAI's."""
    asked = parse(await request.body())
    return JSONResponse(await while_connected(request, request.app.state.chat.explain(asked)))


async def list_models(request: Request) -> Response:
    """The model of this server, as a list of one."""
    return JSONResponse({"object": "list", "data": [_model(request.app.state.model)]})


async def get_model(request: Request) -> Response:
    """The model."""
    name = request.path_params["name"]
    if name != request.app.state.model:
        raise ApiError("model_not_found", f"There is no model {name[:100]!r}: GET /v1/models lists them", "model")
    return JSONResponse(_model(name))


def _model(name: str) -> dict[str, Any]:
    # `explains` is ours: pages ask where the model looked only where they are told.
    return {"id": name, "object": "model", "created": 0, "owned_by": "fusionvl", "explains": True}


async def health(request: Request) -> Response:
    """Whether requests should be sent here: the model is loaded and the server is not shutting down."""
    line: WaitingLine | None = request.app.state.line
    if line is not None and not line.is_ready:
        raise ApiError("not_ready", "The model is being loaded: try again", None, 2)
    return JSONResponse({"status": "ok"})


async def openapi(request: Request) -> Response:
    """What there is, as OpenAPI tells it."""
    schema = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = schema.pop("$defs") | {"ChatRequest": schema}
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatRequest"}}}}
    paths: dict[str, Any] = {}
    for route in ROUTES:
        method = "post" if "POST" in (route.methods or ()) else "get"
        told = {"summary": route.endpoint.__doc__, "responses": {"200": {"description": "As OpenAI's API answers"}}}
        paths[route.path] = {method: {**told, "requestBody": body} if method == "post" else told}
    info = {"title": "fusionvl", "version": __version__}
    return JSONResponse({"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}})


ROUTES = (
    Route("/v1/chat/completions", chat_completions, methods=["POST"]),
    Route("/v1/explain", explain, methods=["POST"]),
    Route("/v1/models", list_models),
    Route("/v1/models/{name}", get_model),
    Route("/health", health),
    Route("/openapi.json", openapi),
)
