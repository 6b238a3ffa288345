"""The application: endpoints wired to what answers them. Knows paths; everything else is in the modules beside it.

app = create_app(ServerSettings(models=(ServedModel("nano", "/folder"),)))
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, File, Form, Request, Response, UploadFile
from prometheus_client import CONTENT_TYPE_LATEST

from fusionvl import __version__
from fusionvl.serve.backend import Files, Pool
from fusionvl.serve.chat import ChatService
from fusionvl.serve.engine_loader import load_engine
from fusionvl.serve.errors import ApiError, add_error_handlers
from fusionvl.serve.fetching import ImageFetcher
from fusionvl.serve.files import FileStore
from fusionvl.serve.images import ImageReader
from fusionvl.serve.limits import Gate
from fusionvl.serve.metrics import Measured, Metrics
from fusionvl.serve.models import ModelPool
from fusionvl.serve.pages import add_pages
from fusionvl.serve.protocol import ChatRequest
from fusionvl.serve.settings import ServerSettings
from fusionvl.serve.streaming import ClientLeft, EventStream, while_connected
from fusionvl.serve.worker import Loader
from fusionvl.serve.worker_process import LoadError

_LOG = logging.getLogger("fusionvl.serve")
_READING_FACTOR = 2  # a client may take as long again to read a stream as the answer may take
_CLIENT_LEFT = 499  # as nginx writes it down; nobody reads it

router = APIRouter()


def create_app(
    settings: ServerSettings,
    loader: Loader = load_engine,
    fetcher: ImageFetcher | None = None,
    pool: Pool | None = None,
    files: Files | None = None,
) -> FastAPI:
    """Build the application; models start with it and end with it.

    Args:
        settings: Models, keys, limits.
        loader: Loads a model in its process.
        fetcher: For images by URL; None is one as the settings want it.
        pool: The models; None is processes of this machine that `loader` loads them in.
        files: Keeps uploaded images; None is this process.
    """
    app = FastAPI(title="fusionvl", version=__version__, lifespan=_lifespan, docs_url=None, redoc_url=None)
    app.router.redirect_slashes = False  # a redirect has no error shape
    state = app.state
    state.settings = settings
    state.running = 0
    state.draining = asyncio.Event()
    state.pool = pool or ModelPool(settings.models, loader, settings.workers, settings.limits)
    state.files = files or FileStore(settings.limits)
    state.metrics = Metrics(state.pool)
    fetcher = fetcher or ImageFetcher(settings.limits, settings.allow_private_networks)
    state.images = ImageReader(settings.limits, fetcher, state.files)
    state.chat = ChatService(state.pool, state.images, state.metrics, settings.limits)
    app.include_router(router)
    add_pages(app)
    add_error_handlers(app)
    app.add_exception_handler(ClientLeft, _client_left)
    app.add_middleware(Gate, settings=settings)
    app.add_middleware(Measured, metrics=state.metrics)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    loading = asyncio.create_task(_load_first(app))
    yield
    loading.cancel()
    await app.state.pool.close()


async def _load_first(app: FastAPI) -> None:
    """Load the first model beside the event loop's other work, so that /health answers meanwhile."""
    app.state.load_error = None
    try:
        await app.state.pool.load_first()
    except (LoadError, ApiError) as error:
        app.state.load_error = error
        _LOG.error("The first model cannot be loaded: %s", error)


async def _client_left(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_LEFT)


@router.post("/v1/chat/completions")
async def chat_completions(body: ChatRequest, request: Request) -> Any:
    """Answer a conversation about an image, in one piece or as a stream."""
    chat, owner = request.app.state.chat, request.scope["owner"]
    if body.stream:
        seconds = _READING_FACTOR * request.app.state.settings.limits.answer_seconds
        return EventStream(await while_connected(request, chat.stream(body, owner)), seconds)
    return await while_connected(request, chat.complete(body, owner))


@router.post("/v1/explain")
async def explain(body: ChatRequest, request: Request) -> dict[str, Any]:
    """Where the model looked for one question about one image, and what the question changed; ours, not OpenAI's."""
    return await while_connected(request, request.app.state.chat.explain(body, request.scope["owner"]))


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, Any]:
    """The models of this server, loaded or not."""
    return {"object": "list", "data": [_model(name) for name in request.app.state.pool.names]}


@router.get("/v1/models/{name}")
async def get_model(name: str, request: Request) -> dict[str, Any]:
    """One model."""
    if name not in request.app.state.pool.names:
        raise ApiError("model_not_found", f"There is no model {name[:100]!r}: GET /v1/models lists them", "model")
    return _model(name)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "fusionvl"}


@router.post("/v1/files")
async def upload_file(
    request: Request, file: Annotated[UploadFile, File()], purpose: Annotated[str, Form()]
) -> dict[str, Any]:
    """Keep an image for later requests."""
    state = request.app.state
    if purpose not in ("vision", "user_data"):
        raise ApiError("invalid_parameter", f"purpose is vision or user_data, not {purpose[:40]!r}", "purpose")
    content = await file.read()
    try:
        media_type = await asyncio.to_thread(state.images.check, content)
    except ApiError as error:
        error.param = "file"
        raise
    stored = await state.files.add(request.scope["owner"], content, media_type, file.filename or "image", purpose)
    return dict(stored.as_json())


@router.get("/v1/files")
async def list_files(request: Request) -> dict[str, Any]:
    """The client's own files, newest first."""
    files = [file.as_json() for file in await request.app.state.files.list(request.scope["owner"])]
    ends = {"first_id": files[0]["id"], "last_id": files[-1]["id"]} if files else {}
    return {"object": "list", "data": files, "has_more": False, **ends}


@router.get("/v1/files/{file_id}")
async def get_file(file_id: str, request: Request) -> dict[str, Any]:
    """One file's description."""
    file = await request.app.state.files.get(request.scope["owner"], file_id)
    return dict(file.as_json())


@router.get("/v1/files/{file_id}/content")
async def get_content(file_id: str, request: Request) -> Response:
    """One file's bytes."""
    file = await request.app.state.files.get(request.scope["owner"], file_id)
    headers = {"Content-Disposition": "attachment", "X-Content-Type-Options": "nosniff"}
    return Response(file.content, media_type=file.media_type, headers=headers)


@router.delete("/v1/files/{file_id}")
async def delete_file(file_id: str, request: Request) -> dict[str, Any]:
    """Forget a file."""
    await request.app.state.files.delete(request.scope["owner"], file_id)
    return {"id": file_id, "object": "file", "deleted": True}


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the server lives."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(request: Request) -> dict[str, str]:
    """Whether requests should be sent here: the first model is loaded and the server is not shutting down."""
    state = request.app.state
    if state.draining.is_set():
        raise ApiError("shutting_down", "The server is shutting down", None, 5)
    if not state.pool.is_ready:
        raise ApiError("not_ready", "The model is being loaded: try again", None, 2)
    return {"status": "ready"}


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Counters and gauges, for Prometheus."""
    return Response(request.app.state.metrics.as_text(), media_type=CONTENT_TYPE_LATEST)
