"""Runs the application on a socket, and ends it in order: the first signal lets running answers finish.

Knows uvicorn, sockets and signals; knows no endpoints.
"""

import asyncio
import contextlib
import functools
import logging
import os
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import uvicorn
from starlette.applications import Starlette

from fusionvl.serve.connection import Connection, ConnectionLimits
from fusionvl.serve.waiting_line import WaitingLine

_POLL_SECONDS = 0.05
_LAST_SECONDS = 1.0  # for what the last requests are still told, once nobody waits for answers any more


class DrainingServer(uvicorn.Server):
    """A server that goes on listening while it drains, so that new requests are told why they are refused.

    Args:
        app: Made by `create_app` or `create_page_for`.
        drain_seconds: For running answers.
        connections: Bounds on them.
    """

    def __init__(self, app: Starlette, drain_seconds: float, connections: ConnectionLimits) -> None:
        protocol: Any = functools.partial(Connection, limits=connections)
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=protocol,
            ws="none",
            log_level="error",  # every wrong request would be a warning
            access_log=False,
            server_header=False,
            backlog=connections.at_once,
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)
        self._app = app
        self._line: WaitingLine | None = app.state.line
        self._drain_seconds = drain_seconds
        self._asked = 0
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain at the first signal, cut that short at the second, end on the spot at the third."""
        # Not told to uvicorn: it would raise the signal again at the end, and the exit code be the signal's.
        self._asked += 1
        if self._asked > 2:
            os._exit(1)

    async def on_tick(self, counter: int) -> bool:
        """Look for signals and for a model that cannot be loaded, ten times a second."""
        if self._line is not None and self._line.load_error is not None:
            return True
        if self._asked and self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        return await super().on_tick(counter)

    async def _drain(self) -> None:
        self._app.state.draining.set()
        await self._until_idle(self._drain_seconds, 1)
        if self._line is not None:
            self._line.close()  # whoever still waits is told so
        await self._until_idle(_LAST_SECONDS, 2)
        for connection in list(self.server_state.connections):
            connection.transport.abort()  # who is left sends or reads too slowly; uvicorn would answer with a 500
        self.should_exit = True

    async def _until_idle(self, seconds: float, signals: int) -> None:
        """Wait until no request is under way, or for so long, or until more signals come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.server_state.tasks and self._asked <= signals:
                    await asyncio.sleep(_POLL_SECONDS)


def run_server(
    app: Starlette, host: str, port: int, drain_seconds: float, announce: Callable[[str], None]
) -> NoReturn:
    """Serve until a signal ends it, and with it the process.

    Args:
        app: Made by `create_app` or `create_page_for`.
        host: Address to listen at.
        port: 0 takes a free one.
        drain_seconds: For running answers after a signal.
        announce: Told the server's address once it listens.

    Raises:
        ValueError: When the address cannot be used, or the model cannot be loaded.
    """
    listener = listen(host, port)
    name = f"[{host}]" if ":" in host else host
    announce(f"http://{name}:{listener.getsockname()[1]}")
    try:
        DrainingServer(app, drain_seconds, ConnectionLimits.of_process()).run(sockets=[listener])
    finally:
        listener.close()
    if app.state.line is not None and app.state.line.load_error is not None:
        raise ValueError(app.state.line.load_error)
    # A thread may be inside the model, a decoder or a name look-up, where nothing can end it; Python would wait.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 takes a free one.

    Raises:
        ValueError: When the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        # By its protocol asyncio knows that it may set TCP_NODELAY, without which each answer waits for some 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        raise ValueError(f"cannot listen at {host}, port {port}: {error.strerror or error}") from error
    except OverflowError as error:
        raise ValueError(f"cannot listen at {host}, port {port}: a port is 0 to 65535") from error
    listener.setblocking(False)
    return listener
