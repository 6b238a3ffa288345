"""The gate before every endpoint: host name, origin, API key, size and speed of the body, draining.

Plain ASGI, so that a refused request's body is never read. Knows keys and bytes; knows no endpoints but those that
are open to all.
"""

import asyncio
import hashlib
import hmac
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fusionvl.serve.errors import ApiError, shutting_down
from fusionvl.serve.settings import Limits, ServerSettings

_GUARDED = "/v1/"
_HEALTH = "/health"
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/@]+)(:\d{1,5})?")
_OWN_SITES = ("same-origin", "none")  # the server's own page, and a person who typed the address
_MARKS = b'",:[{'  # each value of a JSON text needs at least one


class Gate:
    """ASGI middleware that refuses before anything is read.

    Args:
        app: What is behind it.
        settings: Key, hosts, limits.

    Attributes:
        limits: Of bodies.
        held_bytes: Of all bodies of requests under way.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._key = settings.api_key
        self._hosts = {host.lower() for host in settings.allowed_hosts}
        self.limits = settings.limits
        self.held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._enter(scope)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        body = _BoundedBody(receive, self)
        try:
            await self._app(scope, body, send)
        finally:
            self.held_bytes -= body.seen

    def _enter(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        parsed = _HOST.fullmatch(host)
        if self._hosts and (parsed is None or parsed[1] not in self._hosts):
            raise ApiError("host_not_allowed", f"This server is not called {host[:100]!r}: see --allowed-host")
        path = str(scope["path"])
        if path.startswith(_GUARDED):
            self._check_asker(headers, host)
        elif path != _HEALTH:
            return
        if scope["app"].state.draining.is_set():
            raise shutting_down()
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.limits.body_bytes:
            raise _too_large(self.limits)

    def _check_asker(self, headers: Headers, host: str) -> None:
        """Whether it may ask. Browsers say whose page asks, one way or the other; programs say nothing."""
        origin = headers.get("origin")
        is_own = origin is None or origin.lower().partition("://")[2] == host
        if not is_own or headers.get("sec-fetch-site", "none") not in _OWN_SITES:
            raise ApiError("origin_not_allowed", "Another site's page asks; this server's own page and programs may")
        if self._key is None:
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        is_right = hmac.compare_digest(_digest(key.strip()), _digest(self._key))  # its time tells nothing of the key
        if scheme.lower() != "bearer" or not is_right:
            raise ApiError("invalid_api_key", "Send the server's key: Authorization: Bearer KEY")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _too_large(limits: Limits) -> ApiError:
    return ApiError("body_too_large", f"The body has more than {limits.body_bytes} bytes: send a smaller image")


class _BoundedBody:
    """Receives a body that is neither larger, slower nor more work than allowed; what comes after it passes.

    Attributes:
        seen: Its bytes so far.
    """

    def __init__(self, receive: Receive, gate: Gate) -> None:
        self.seen = 0
        self._receive = receive
        self._gate = gate
        self._marks = 0
        self._deadline = asyncio.get_running_loop().time() + gate.limits.body_seconds
        self._is_complete = False

    async def __call__(self) -> Message:
        if self._is_complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            seconds = self._gate.limits.body_seconds
            raise ApiError("body_too_slow", f"The body did not come within {seconds:g} seconds") from None
        self._is_complete = not message.get("more_body", False)
        self._count(message.get("body", b""))
        return message

    def _count(self, content: bytes) -> None:
        limits = self._gate.limits
        self.seen += len(content)
        self._gate.held_bytes += len(content)
        self._marks += len(content) - len(content.translate(None, _MARKS))
        if self.seen > limits.body_bytes:
            raise _too_large(limits)
        if self._marks > limits.body_marks:
            message = f"The body has more than {limits.body_marks} quotes, commas and the like: say less"
            raise ApiError("body_too_large", message)
        if self._gate.held_bytes > limits.bodies_bytes:
            raise ApiError("too_many_requests", "The server holds as many requests as it can: try again", None, 2)
