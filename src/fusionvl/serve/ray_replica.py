"""What runs in the processes of a Ray cluster beside the application: one model each, or the uploaded files.

The model is loaded as a worker process loads it (`engine_loader.py`), with its continuous batching, in the replica's
own process. Plain classes: `ray_app.py` makes deployments of them. Knows no HTTP and no other replicas.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fusionvl.engine.generation_request import Event, Failure, Finish, Listener, Piece, SamplingSettings
from fusionvl.serve.errors import ApiError
from fusionvl.serve.files import FileStore
from fusionvl.serve.messages import Call, Refused, Returned
from fusionvl.serve.settings import Limits, WorkerSettings
from fusionvl.serve.worker import LineFull, Loader, Ticket, refusal, run_call

_LOG = logging.getLogger("fusionvl.serve")
_PROBE: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": "ready?"}]}]


class ModelReplica:
    """One model in this process.

    Args:
        loader: Loads it.
        source: Hub name or folder, to be found on every node.
        settings: How it runs; `silence_seconds` is what a health check waits for a sign of life.
        limits: Of requests.
    """

    def __init__(self, loader: Loader, source: str, settings: WorkerSettings, limits: Limits) -> None:
        self._model = loader(source, settings, limits)
        self._silence_seconds = settings.silence_seconds
        self._most_answers = limits.waiting + settings.max_batch
        self._open_answers = 0
        self._events_told = 0
        self._one_call = asyncio.Lock()

    async def answers(
        self, messages: list[dict[str, Any]], settings: Sequence[SamplingSettings], seconds: float
    ) -> AsyncGenerator[list[tuple[int, Event | Refused]], None]:
        """Answer a conversation once for each of the settings; ending the generator stops the work.

        Yields:
            All that happened since the last time: (which of the settings, event). `Refused` is the end of all.
        """
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        deadline = time.monotonic() + seconds
        tickets: list[Ticket] = []
        if self._open_answers + len(settings) > self._most_answers:
            message = f"{self._open_answers} answers wait or run, the bound is {self._most_answers}: try again"
            yield [(0, Refused("queue_full", message))]
            return
        self._open_answers += len(settings)
        try:
            for index, one in enumerate(settings):
                listener = _listener(loop, inbox, index)
                try:
                    tickets.append(self._model.batching.submit(messages, one, listener, deadline))
                except ValueError as error:
                    yield [(index, Refused("invalid_request", str(error)))]
                    return
                except LineFull as error:  # those that just left may still stand in the line
                    yield [(index, Refused("queue_full", f"{error}: try again"))]
                    return
                except Exception:  # noqa: BLE001 - a batching that takes no request has ended: another must begin
                    _LOG.exception("the batching takes no requests any more")
                    os._exit(1)  # who waits here asks another replica
            unfinished = len(tickets)
            while unfinished:
                events = [await inbox.get()]
                while not inbox.empty():
                    events.append(inbox.get_nowait())
                self._events_told += len(events)
                unfinished -= sum(not isinstance(event, Piece) for _, event in events)
                yield [(index, await _judged(event, messages)) for index, event in events]
        finally:
            self._open_answers -= len(settings)
            for ticket in tickets:
                ticket.cancel()

    async def call(self, name: str, arguments: dict[str, Any]) -> Returned:
        """Run one of the model's further functions beside the batching, one at a time."""
        async with self._one_call:
            running = asyncio.ensure_future(asyncio.to_thread(run_call, self._model, Call(0, name, arguments)))
            try:
                return await asyncio.shield(running)
            finally:
                if not running.done():  # who asked has left, but a thread cannot be stopped: the next one waits for it
                    await asyncio.wait([running])

    async def check_health(self) -> None:
        """Ask the engine: it has told something since the last time, or it tells one token now. Ray calls it.

        Raises:
            RuntimeError: When the answer is none.
            TimeoutError: When none comes; the replica is replaced.
        """
        if self._events_told == 0:
            settings = (SamplingSettings(max_new_tokens=1),)
            async with asyncio.timeout(self._silence_seconds):
                async for events in self.answers(_PROBE, settings, self._silence_seconds):
                    last = events[-1][1]
            if not isinstance(last, Finish):
                raise RuntimeError(f"asked for a token, the model gave {last}")
        self._events_told = 0


def _listener(loop: asyncio.AbstractEventLoop, inbox: "asyncio.Queue[tuple[int, Event]]", index: int) -> Listener:
    def listener(event: Event) -> None:  # in the batching's thread
        loop.call_soon_threadsafe(inbox.put_nowait, (index, event))

    return listener


async def _judged(event: Event, messages: list[dict[str, Any]]) -> Event | Refused:
    """The event; a failure that the request is to blame for becomes a refusal."""
    if isinstance(event, Failure) and event.is_users:
        return await asyncio.to_thread(refusal, event, messages)
    return event


class FileKeeper:
    """The uploaded files of all application processes, in this process.

    Args:
        limits: Bytes and age.
    """

    def __init__(self, limits: Limits) -> None:
        self._store = FileStore(limits)

    async def do(self, action: str, arguments: tuple[Any, ...]) -> Any:
        """Run a method of `FileStore`; what it refuses is returned, because exceptions do not travel well."""
        try:
            return await getattr(self._store, action)(*arguments)
        except ApiError as error:
            return Refused(error.code, error.message)
