"""The gate before every endpoint: host name, API key, requests at a time, size and speed of the body, draining.

Plain ASGI, so that a refused request's body is never read. Knows keys and bytes; knows no endpoints but those that
are open to all.
"""

import asyncio
import hashlib
import hmac
from collections import Counter
from collections.abc import Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fusionvl.serve.errors import ERROR_KEY, ApiError
from fusionvl.serve.settings import ServerSettings

_GUARDED = ("/v1/", "/metrics")
ANYBODY = "anybody"


class ApiKeys:
    """Compares keys so that the time it takes tells nothing about them.

    Args:
        keys: The valid ones; none lets everybody in.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def owner(self, authorization: str) -> str:
        """A name for the key in an `Authorization` header that is not the key.

        Raises:
            ApiError: When a key is needed and this is none.
        """
        if not self._digests:
            return ANYBODY
        scheme, _, key = authorization.partition(" ")
        digest = _digest(key.strip())
        matches = [hmac.compare_digest(digest, known) for known in self._digests]  # all of them, always
        if scheme.lower() != "bearer" or not any(matches):
            raise ApiError("invalid_api_key", "Send one of the server's keys: Authorization: Bearer KEY")
        return digest.hex()[:16]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class Gate:
    """ASGI middleware that refuses before anything is read.

    Args:
        app: What is behind it.
        settings: Keys, hosts, limits.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._limits = settings.limits
        self._keys = ApiKeys(settings.api_keys)
        self._hosts = {host.lower() for host in settings.allowed_hosts}
        self._running: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            owner = self._enter(scope)
        except ApiError as error:
            scope[ERROR_KEY] = error.code
            await error.response()(scope, receive, send)
            return
        scope["owner"] = client = _client(scope, owner)
        self._running[client] += 1
        scope["app"].state.running += 1
        try:
            await self._app(scope, _BoundedBody(receive, self._limits.body_bytes, self._limits.body_seconds), send)
        finally:
            scope["app"].state.running -= 1
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]

    def _enter(self, scope: Scope) -> str:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
        if self._hosts and name not in self._hosts:
            raise ApiError("host_not_allowed", f"This server is not called {name[:100]!r}: see --allowed-host")
        path = _path(scope)
        if not path.startswith(_GUARDED):
            return ANYBODY
        if headers.get("sec-fetch-site", "") == "cross-site":
            raise ApiError("origin_not_allowed", "Another site's page asks; this server's own page and programs may")
        owner = self._keys.owner(headers.get("authorization", ""))
        if scope["app"].state.draining.is_set() and path.startswith("/v1/"):
            raise ApiError("shutting_down", "The server is shutting down: try again elsewhere or later", None, 5)
        bound = self._limits.requests_per_key
        if self._running[_client(scope, owner)] >= bound:
            raise ApiError("too_many_requests", f"At most {bound} requests at a time: wait for one to end", None, 1)
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._limits.body_bytes:
            raise _too_large(self._limits.body_bytes)
        return owner


def _path(scope: Scope) -> str:
    """The path below the prefix that the application is mounted under, as the router will see it."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _client(scope: Scope, owner: str) -> str:
    """Who shares one allowance and sees the same files: a key, or an address where there are no keys."""
    return owner if owner != ANYBODY else f"address {(scope.get('client') or ('',))[0]}"


def _too_large(bound: int) -> ApiError:
    return ApiError("body_too_large", f"The body has more than {bound} bytes: send a smaller image")


class _BoundedBody:
    """Receives a body that is neither larger nor slower than allowed; what comes after it passes."""

    def __init__(self, receive: Receive, max_bytes: int, max_seconds: float) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._deadline: float | None = None
        self._seen = 0
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._max_seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise ApiError("body_too_slow", f"The body did not come within {self._max_seconds:g} seconds") from None
        self._count(message)
        return message

    def _count(self, message: Any) -> None:
        self._seen += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._seen > self._max_bytes:
            raise _too_large(self._max_bytes)
