"""The inside of a worker process: one model, its batching, and a pipe to the server.

Images are decoded here, so that a picture that breaks a decoder breaks no server. Ends when the pipe does. Knows no
HTTP.
"""

import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Protocol

from fusionvl.engine.generation_request import Event, Failure, Listener, Piece, SamplingSettings
from fusionvl.processing.image_loading import load_image
from fusionvl.serve.messages import (
    Beat,
    Call,
    Cancel,
    Loaded,
    LoadFailed,
    Refused,
    Returned,
    Stop,
    Submit,
    Told,
)
from fusionvl.serve.settings import Limits, WorkerSettings

_LOG = logging.getLogger("fusionvl.serve.worker")
_BEAT_SECONDS = 1.0


class LineFull(Exception):  # noqa: N818 - as queues name theirs
    """As many requests wait as may wait."""


class Ticket(Protocol):
    """An answer that was asked for."""

    def cancel(self) -> None:
        """Say that nobody wants it any more; changes nothing when it is over."""


class Batching(Protocol):
    """What a worker needs of `ContinuousBatching`."""

    def submit(
        self, messages: list[dict[str, Any]], settings: SamplingSettings, listener: Listener, deadline: float | None
    ) -> Ticket:
        """Begin an answer; its events go to the listener.

        Raises:
            ValueError: When the request is at fault.
            LineFull: When it is to come back later.
            RuntimeError: When the batching has ended.
        """

    def close(self, drain: bool) -> None:
        """End, after the running answers if it shall drain."""


CallFunction = Callable[..., Any]


@dataclass(frozen=True)
class LoadedModel:
    """What a loader returns.

    Attributes:
        batching: Answers conversations.
        num_bytes: Memory the model takes.
        calls: Further functions by name; they run one at a time beside the batching.
        beat: Reads how busy the batching is; raises when it has ended by itself.
    """

    batching: Batching
    num_bytes: int
    calls: Mapping[str, CallFunction] = field(default_factory=dict)
    beat: Callable[[], Beat] = Beat


Loader = Callable[[str, WorkerSettings, Limits], LoadedModel]
"""Loads a model; a function of a module, because its name goes to another process."""


def work(connection: Connection, loader: Loader, source: str, settings: WorkerSettings, limits: Limits) -> None:
    """Run a worker process until the server says stop or goes away."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)  # a terminal or an init system signals all; the server tells us when
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    outbox = _Outbox(connection)
    try:
        model = loader(source, settings, limits)
    except (ValueError, ModuleNotFoundError) as error:
        outbox.put(LoadFailed(str(error)))
        outbox.close()
        return
    except Exception as error:  # noqa: BLE001 - out of memory and the like: the server must know, whatever it is
        _LOG.exception("%s cannot be loaded", source)
        outbox.put(LoadFailed(f"{type(error).__name__}: {error}"))
        outbox.close()
        return
    outbox.put(Loaded(model.num_bytes))
    _Worker(model, outbox).run(connection)


class _Outbox:
    """Sends messages from any thread without making it wait."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send, name="outbox", daemon=True)
        self._thread.start()

    def put(self, message: Any) -> None:
        self._messages.put(message)

    def close(self) -> None:
        """Return when everything is sent."""
        self._messages.put(None)
        self._thread.join()

    def _send(self) -> None:
        try:
            while (message := self._messages.get()) is not None:
                self._connection.send(message)
        except OSError:
            os._exit(1)  # the server is gone: nobody waits for anything this process does


class _Worker:
    """Dispatches the server's messages."""

    def __init__(self, model: LoadedModel, outbox: _Outbox) -> None:
        self._model = model
        self._outbox = outbox
        self._tickets: dict[int, Ticket | None] = {}  # None: being submitted
        self._lock = threading.Lock()
        self._is_stopping = False
        self._calls: dict[int, Future[None]] = {}
        self._aside = ThreadPoolExecutor(1, "aside")  # what must not hold up the batching or the pipe
        self._refusals = ThreadPoolExecutor(1, "refusals")  # nor wait behind long calls
        threading.Thread(target=self._beat, name="beat", daemon=True).start()

    def run(self, connection: Connection) -> None:
        while True:
            try:
                message = connection.recv()
            except (EOFError, OSError):
                os._exit(1)  # the server is gone, and with it everybody who waited
            match message:
                case Submit():
                    for key, settings in zip(message.keys, message.settings, strict=True):
                        self._submit(key, settings, message)
                case Cancel():
                    self._cancel(message.keys)
                case Call():
                    self._begin_call(message)
                case Stop():
                    self._stop()

    def _stop(self) -> None:
        self._is_stopping = True
        self._model.batching.close(drain=False)
        self._outbox.close()
        os._exit(0)  # nothing is left to do, and taking torch apart in order takes seconds

    def _beat(self) -> None:
        while not self._is_stopping:
            try:
                self._outbox.put(self._model.beat())
            except Exception:  # noqa: BLE001 - whatever it is, who waits here waits in vain: another process must begin
                if self._is_stopping:
                    return
                _LOG.exception("the batching has ended")
                os._exit(1)
            time.sleep(_BEAT_SECONDS)

    def _submit(self, key: int, settings: SamplingSettings, message: Submit) -> None:
        def listener(event: Event) -> None:
            self._tell(key, event, message)

        with self._lock:
            self._tickets[key] = None
        try:
            deadline = time.monotonic() + message.seconds
            ticket = self._model.batching.submit(message.messages, settings, listener, deadline)
        except ValueError as error:
            self._end(key, Refused("invalid_request", str(error)))
            return
        except LineFull as error:
            self._end(key, Refused("queue_full", f"{error}: try again"))
            return
        except Exception:  # noqa: BLE001 - a batching that takes no request has ended: another process must begin
            _LOG.exception("the batching takes no requests any more")
            os._exit(1)
        with self._lock:
            if key in self._tickets:  # else it is over already
                self._tickets[key] = ticket

    def _tell(self, key: int, event: Event, message: Submit) -> None:
        """In the batching's thread."""
        if isinstance(event, Piece):
            self._outbox.put(Told(key, event))
        elif isinstance(event, Failure) and event.is_users:
            self._refusals.submit(lambda: self._end(key, refusal(event, message.messages)))
        else:
            self._end(key, event)

    def _end(self, key: int, event: Event | Refused) -> None:
        with self._lock:
            self._tickets.pop(key, None)
        self._outbox.put(Told(key, event))

    def _cancel(self, keys: tuple[int, ...]) -> None:
        for key in keys:
            if (call := self._calls.get(key)) is not None:
                call.cancel()  # if it has not begun
        with self._lock:
            tickets = [self._tickets.get(key) for key in keys]
        for ticket in tickets:
            if ticket is not None:
                ticket.cancel()

    def _begin_call(self, message: Call) -> None:
        call = self._calls[message.key] = self._aside.submit(self._call, message)
        call.add_done_callback(lambda _: self._calls.pop(message.key, None))

    def _call(self, message: Call) -> None:
        self._outbox.put(run_call(self._model, message))


def run_call(model: LoadedModel, call: Call) -> Returned:
    """Run one of a model's further functions; what goes wrong is in what it returns."""
    try:
        return Returned(call.key, model.calls[call.name](**call.arguments))
    except ValueError as error:
        return Returned(call.key, refused=Refused("invalid_request", str(error)))
    except Exception:  # noqa: BLE001 - one call's trouble must reach its client, and no other
        _LOG.exception("the call %s failed", call.name)
        return Returned(call.key, refused=Refused("generation_failed", "The model failed on this request"))


def refusal(failure: Failure, messages: list[dict[str, Any]]) -> Refused:
    """A failure that the request is to blame for, with a code that says whether its length or an image was it."""
    if failure.is_too_long:
        return Refused("context_length_exceeded", failure.message)
    images = [part["image"] for turn in messages for part in turn["content"] if part["type"] == "image"]
    try:
        for image in images:
            load_image(image)
    except ValueError as error:
        return Refused("image_unusable", str(error))
    return Refused("invalid_request", failure.message)
