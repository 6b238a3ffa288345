"""The outside of a worker process: starts it, talks to it from the event loop, notices when it dies or hangs.

Whoever waits for an answer when the process ends is told so at once. Knows pipes and processes; knows no HTTP and no
other models.
"""

import asyncio
import contextlib
import itertools
import logging
import multiprocessing
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from fusionvl.engine.generation_request import Event, Piece, SamplingSettings
from fusionvl.serve.errors import ApiError
from fusionvl.serve.messages import Beat, Call, Cancel, Loaded, LoadFailed, Refused, Returned, Stop, Submit, Told
from fusionvl.serve.settings import Limits, WorkerSettings
from fusionvl.serve.worker import Loader, work

_LOG = logging.getLogger("fusionvl.serve")
_WATCH_SECONDS = 1.0
_STOP_SECONDS = 5.0


class LoadError(ValueError):
    """A model that cannot be loaded; the message says why, in words for whoever runs the server."""


@dataclass(frozen=True)
class Lost:
    """The event that an ending worker leaves to each of its answers.

    Attributes:
        error: What their clients are told.
    """

    error: ApiError


Inbox = asyncio.Queue[tuple[int, Event | Refused | Lost]]


class WorkerProcess:
    """One model in its process.

    Args:
        source: Hub name or folder.
        loader: Loads the model, in the process.
        settings: How it runs.
        limits: Of requests.
        on_death: Called in the event loop when the process has ended unasked.
    """

    def __init__(
        self,
        source: str,
        loader: Loader,
        settings: WorkerSettings,
        limits: Limits,
        on_death: Callable[["WorkerProcess"], None],
    ) -> None:
        self.source = source
        self.num_bytes = 0
        self.beat = Beat()
        self._settings = settings
        self._on_death = on_death
        self._keys = itertools.count()
        self._inboxes: dict[int, tuple[int, Inbox]] = {}
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._last_heard = time.monotonic()
        self._stopping = False
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[None] = self._loop.create_future()
        context = multiprocessing.get_context("spawn")  # a fork would copy the server's threads and locks
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=work, args=(theirs, loader, source, settings, limits), name=f"fusionvl {source}", daemon=True
        )
        self._theirs: Connection = theirs
        self._watching: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether requests may be sent."""
        return self._loaded.done() and not self._ended.is_set() and not self._stopping

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return self._process.pid

    async def start(self) -> None:
        """Start the process; returns when the model is loaded.

        Raises:
            LoadError: When it cannot be loaded, in time or at all.
        """
        await asyncio.to_thread(self._process.start)
        self._theirs.close()
        threading.Thread(target=self._read, name=f"read {self.source}", daemon=True).start()
        threading.Thread(target=self._write, name=f"write {self.source}", daemon=True).start()
        try:
            async with asyncio.timeout(self._settings.load_seconds):
                await asyncio.shield(self._loaded)
        except TimeoutError:
            await self.kill()
            raise LoadError(f"{self.source} was not ready after {self._settings.load_seconds:g} seconds") from None
        except LoadError:
            await self.kill()
            raise
        except asyncio.CancelledError:
            await self.kill()
            raise
        self._watching = self._loop.create_task(self._watch())

    async def answers(
        self, messages: list[dict[str, Any]], settings: Sequence[SamplingSettings], seconds: float
    ) -> AsyncGenerator[tuple[int, Event], None]:
        """Answer a conversation once for each of the settings; leaving the loop early stops the work.

        Yields:
            (Which of the settings, event); the last event of each is `Finish` or `Failure`.

        Raises:
            ApiError: When the request is refused or the worker dies.
        """
        inbox: Inbox = asyncio.Queue()
        keys = tuple(next(self._keys) for _ in settings)
        self._inboxes |= {key: (index, inbox) for index, key in enumerate(keys)}
        self._send(Submit(keys, messages, tuple(settings), seconds))
        open_answers = len(keys)
        try:
            while open_answers:
                index, event = await inbox.get()
                if isinstance(event, Lost):
                    raise event.error
                if isinstance(event, Refused):
                    raise _refusal(event)
                open_answers -= not isinstance(event, Piece)
                yield index, event
        finally:
            if unfinished := tuple(key for key in keys if self._inboxes.pop(key, None)):
                self._send(Cancel(unfinished))

    async def call(self, name: str, **arguments: Any) -> Any:
        """Run one of the worker's functions (`LoadedModel.calls`).

        Raises:
            ApiError: When it refuses, fails, or the worker dies.
        """
        key = next(self._keys)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._calls[key] = future
        self._send(Call(key, name, arguments))
        try:
            return await future
        finally:
            self._calls.pop(key, None)
            if future.cancelled():  # who asked has left
                self._send(Cancel((key,)))

    async def stop(self) -> None:
        """End the process; answers that still run end with an error."""
        self._stopping = True
        self._lose_all(ApiError("shutting_down", "The server is shutting down: try again elsewhere or later", None, 5))
        self._send(Stop())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await self._ended.wait()
        await self.kill()

    async def kill(self) -> None:
        """End the process at once."""
        self._stopping = True
        if self._process.pid is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.join)
            await self._ended.wait()

    def _send(self, message: Any) -> None:
        if self._ended.is_set():
            self._lose_all(_crashed())
        else:
            self._outbox.put(message)

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # the reader notices the end, too, and tells everybody
            while (message := self._outbox.get()) is not None:
                self._connection.send(message)

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = self._connection.recv()
                self._in_loop(self._received, message)
        self._outbox.put(None)
        self._process.join()
        self._in_loop(self._has_ended)

    def _in_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server is ending
            self._loop.call_soon_threadsafe(function, *arguments)

    def _received(self, message: Any) -> None:
        self._last_heard = time.monotonic()
        match message:
            case Told(key, event):
                if key in self._inboxes:
                    index, inbox = self._inboxes[key]
                    if not isinstance(event, Piece):
                        del self._inboxes[key]
                    inbox.put_nowait((index, event))
            case Beat():
                self.beat = message
            case Returned(key, value, refused):
                future = self._calls.get(key)
                if future is not None and not future.done():
                    if refused is None:
                        future.set_result(value)
                    else:
                        future.set_exception(_refusal(refused))
            case Loaded(num_bytes):
                self.num_bytes = num_bytes
                self._loaded.set_result(None)
            case LoadFailed(reason):
                self._loaded.set_exception(LoadError(reason))

    def _has_ended(self) -> None:
        self._connection.close()
        self._ended.set()
        if self._watching is not None:
            self._watching.cancel()
        if not self._loaded.done():
            self._loaded.set_exception(LoadError(f"{self.source}: the process ended while it loaded ({self._how()})"))
        was_loaded = self._loaded.exception() is None
        self._lose_all(_crashed())
        if was_loaded and not self._stopping:
            _LOG.error("the worker of %s ended (%s)", self.source, self._how())
            self._on_death(self)

    def _how(self) -> str:
        return f"exit code {self._process.exitcode}"

    def _lose_all(self, error: ApiError) -> None:
        for index, inbox in self._inboxes.values():
            inbox.put_nowait((index, Lost(error)))
        self._inboxes.clear()
        for future in self._calls.values():
            if not future.done():
                future.set_exception(error)

    async def _watch(self) -> None:
        """Kill a process that gives no sign of life; its end is then noticed like any other."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            silence = time.monotonic() - self._last_heard
            if silence > self._settings.silence_seconds:
                _LOG.error("the worker of %s has been silent for %.0f seconds and is killed", self.source, silence)
                self._process.kill()


def _refusal(refused: Refused) -> ApiError:
    return ApiError(refused.code, refused.message, retry_after=2 if refused.code == "queue_full" else None)


def _crashed() -> ApiError:
    return ApiError(
        "worker_crashed", "The model's process ended while it answered; another is being started. Try again.", None, 5
    )
