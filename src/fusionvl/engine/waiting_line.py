"""The line of requests that wait for a place in the batch, and the thread that prepares their pictures meanwhile.

First come, first served; only the foremost requests are prepared, so that pixels of a long line do not fill the
memory. Knows requests and a function that prepares one; knows no model.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from transformers import BatchFeature

from fusionvl.engine.engine import Conversation
from fusionvl.engine.generation_request import Listener, SamplingSettings

PREPARED_AHEAD = 4


class QueueFull(Exception):  # noqa: N818 - as asyncio and queue name theirs
    """As many requests wait as may wait; try again later."""


@dataclass(eq=False)
class Request:
    """One question on its way.

    Attributes:
        messages: The conversation.
        settings: How it is answered.
        listener: Told every event.
        deadline: Moment of `time.monotonic()` after which nobody wants the answer; None: never.
        submitted: Moment of `time.monotonic()`.
        is_cancelled: Nobody wants the answer any more.
        prepared: What the processor made of it, or what went wrong; None: not yet.
    """

    messages: Conversation
    settings: SamplingSettings
    listener: Listener
    deadline: float | None
    submitted: float = field(default_factory=time.monotonic)
    is_cancelled: bool = False
    prepared: BatchFeature | Exception | None = None

    @property
    def is_late(self) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    @property
    def is_unwanted(self) -> bool:
        """Whether there is no use in answering it."""
        return self.is_cancelled or self.is_late


class WaitingLine:
    """Requests that wait, the longest waiting first.

    Args:
        prepare: Makes a request ready for the model; run in a thread of the line's own.
        max_waiting: Requests that may wait.

    Attributes:
        is_closed: Whether it takes no more.
    """

    def __init__(self, prepare: Callable[[Request], BatchFeature], max_waiting: int) -> None:
        self._prepare = prepare
        self._max_waiting = max_waiting
        self._requests: list[Request] = []
        self._changed = threading.Condition()
        self.is_closed = False
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._prepare_all, name="batching preparation", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: Request) -> None:
        """Let a request wait.

        Raises:
            QueueFull: When as many wait as may wait.
            RuntimeError: When the line is closed.
        """
        with self._changed:
            if self.is_closed:
                raise RuntimeError("The batching is closed: it takes no more requests")
            if len(self._requests) >= self._max_waiting:
                raise QueueFull(f"{len(self._requests)} requests wait already, no more may: try again later")
            self._requests.append(request)
            self._changed.notify_all()

    def cancel(self, request: Request) -> None:
        """Mark a request as unwanted, wherever it is by now."""
        with self._changed:
            request.is_cancelled = True
            self._changed.notify_all()

    def take_prepared(self) -> Request | None:
        """Take the foremost request out, if it is prepared."""
        with self._changed:
            if self._requests and self._requests[0].prepared is not None:
                self._changed.notify_all()  # another one may be prepared
                return self._requests.pop(0)
            return None

    def take_unwanted(self) -> list[Request]:
        """Take out the requests that nobody wants any more."""
        with self._changed:
            unwanted = [request for request in self._requests if request.is_unwanted]
            if unwanted:
                self._requests = [request for request in self._requests if request not in unwanted]
                self._changed.notify_all()
            return unwanted

    def take_all(self) -> list[Request]:
        """Take out all requests."""
        with self._changed:
            taken, self._requests = self._requests, []
            self._changed.notify_all()
            return taken

    def wait_for_work(self) -> bool:
        """Wait until a request is prepared or unwanted.

        Returns:
            False when nothing will come any more.
        """
        with self._changed:
            while not self._has_work():
                if self._is_over():
                    return False
                deadlines = [request.deadline for request in self._requests if request.deadline is not None]
                self._changed.wait(max(0.0, min(deadlines) - time.monotonic()) if deadlines else None)
            return True

    def close(self, abandon: bool) -> None:
        """Take no more requests; with `abandon` those that wait are prepared no more."""
        with self._changed:
            self.is_closed = True
            self._is_abandoned = self._is_abandoned or abandon
            self._changed.notify_all()

    def _is_over(self) -> bool:
        return self._is_abandoned or (self.is_closed and not self._requests)

    def _has_work(self) -> bool:
        foremost = self._requests[:1]
        return any(request.prepared is not None for request in foremost) or any(
            request.is_unwanted for request in self._requests
        )

    def _prepare_all(self) -> None:
        while (request := self._next_to_prepare()) is not None:
            try:
                prepared: BatchFeature | Exception = self._prepare(request)
            except Exception as error:  # noqa: BLE001 - told to the request's listener by the batching thread
                prepared = error
            with self._changed:
                request.prepared = prepared
                self._changed.notify_all()

    def _next_to_prepare(self) -> Request | None:
        with self._changed:
            while True:
                for request in self._requests[:PREPARED_AHEAD]:
                    if request.prepared is None and not request.is_unwanted:
                        return request
                if self._is_over():
                    return None
                self._changed.wait()
