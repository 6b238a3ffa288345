"""The web page: the files of the package's folder `web`, each under its own path.

The files are read once, at the start; no path of a request ever meets the file system. Knows media types and headers;
knows nothing of what the files do.
"""

import mimetypes
from importlib import resources
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# Only what this server serves itself may run, show or be asked.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "font-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
_WEB = Path(str(resources.files("fusionvl") / "serve" / "web"))
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_routes() -> list[Route]:
    """A route for every file; `index.html` is `/`."""
    names = {path: path.relative_to(_WEB).as_posix() for path in sorted(_WEB.rglob("*")) if path.is_file()}
    return [_route("/" if name == "index.html" else f"/{name}", path) for path, name in names.items()]


def _route(address: str, path: Path) -> Route:
    content = path.read_bytes()
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"

    async def page(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return Route(address, page)
