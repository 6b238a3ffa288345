"""Runs the application on a socket, and ends it in order: SIGTERM lets running answers finish.

Knows uvicorn, sockets and signals; knows no endpoints.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

_POLL_SECONDS = 0.05
_LAST_SECONDS = 2  # for connections after the running answers, or the patience, have ended


class DrainingServer(uvicorn.Server):
    """A server that goes on listening while it drains, so that new requests are told why they are refused.

    Args:
        app: Made by `create_app`.
        drain_seconds: For running answers.
    """

    def __init__(self, app: FastAPI, drain_seconds: float) -> None:
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=_LAST_SECONDS
        )
        super().__init__(config)
        self._app = app
        self._drain_seconds = drain_seconds
        self._asked = 0
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain at the first signal, end at once at the third."""
        # Not told to uvicorn: it would raise the signal again at the end, and the exit code be the signal's.
        self._asked += 1
        if self._asked > 1:
            self.should_exit = True
        self.force_exit = self._asked > 2

    async def on_tick(self, counter: int) -> bool:
        """Look for signals and for a first model that cannot be loaded, ten times a second."""
        if getattr(self._app.state, "load_error", None) is not None:
            return True
        if self._asked and self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        return await super().on_tick(counter)

    async def _drain(self) -> None:
        self._app.state.draining.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_seconds):
                while self._app.state.running:
                    await asyncio.sleep(_POLL_SECONDS)
        await self._app.state.pool.close()  # whoever still waits is told so
        self.should_exit = True


def run_server(app: FastAPI, host: str, port: int, drain_seconds: float, announce: Callable[[str], None]) -> None:
    """Serve until a signal ends it.

    Args:
        app: Made by `create_app`.
        host: Address to listen at.
        port: 0 takes a free one.
        drain_seconds: For running answers after a signal.
        announce: Told the server's address once it listens.

    Raises:
        ValueError: When the address cannot be used, or the first model cannot be loaded.
    """
    listener = listen(host, port)
    name = f"[{host}]" if ":" in host else host
    announce(f"http://{name}:{listener.getsockname()[1]}")
    server = DrainingServer(app, drain_seconds)
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
    if (error := getattr(app.state, "load_error", None)) is not None:
        raise ValueError(str(error)) from error


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 takes a free one.

    Raises:
        ValueError: When the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        raise ValueError(f"cannot listen at {host}, port {port}: {error.strerror or error}") from error
    except OverflowError as error:
        raise ValueError(f"cannot listen at {host}, port {port}: a port is 0 to 65535") from error
    listener.setblocking(False)
    return listener
