"""The web page: the files of the package's folder `web`, each under its own path.

The files are listed once, at the start; no path of a request ever meets the file system. Knows media types and
headers; knows nothing of what the files do.
"""

import mimetypes
from importlib import resources
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import Response

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


def add_pages(app: FastAPI, folder: Path = _WEB) -> None:
    """Add a route for every file of a folder; `index.html` is `/`."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            _add_page(app, "/" if name == "index.html" else f"/{name}", path)


def _add_page(app: FastAPI, route: str, path: Path) -> None:
    content = path.read_bytes()
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"

    async def page() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    app.add_api_route(route, page, methods=["GET", "HEAD"], include_in_schema=False)
