"""One model in one thread, and the bounded line of requests before it. Knows no HTTP and nothing of what is asked.

The thread loads the model, then takes jobs in order. What a job's work yields goes to the event loop, where its
request waits; when it does no more, the work is closed at its next event.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from fusionvl.serve.errors import ApiError, shutting_down

_LOG = logging.getLogger("fusionvl.serve")
_RETRY_SECONDS = 2

Work = Generator[Any, None, None]
"""What the model does for a request, event by event; closing it stops the model."""


@dataclass(eq=False)
class _Job:
    """A request's place in the line.

    Attributes:
        answers: How many it asks for.
        work: What the model does for it; from its preparation until it begins.
        waits: Whether the model has not begun it.
        is_left: Whether nobody waits for it any more.
        told: Its events, None at the end, or the error that ends it; for the event loop's thread.
    """

    answers: int
    work: Work | None = None
    waits: bool = True
    is_left: bool = False
    told: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)


class WaitingLine:
    """The model, and who waits for it.

    Args:
        load: Loads the model.
        max_waiting: Answers that may wait.

    Attributes:
        load_error: Why the model cannot be loaded.
    """

    def __init__(self, load: Callable[[], Any], max_waiting: int) -> None:
        self.load_error: str | None = None
        self._load = load
        self._model: Any = None
        self._is_loaded = asyncio.Event()
        self._max_waiting = max_waiting
        self._open: set[_Job] = set()
        self._thread = ThreadPoolExecutor(1, "model")

    def start(self) -> None:
        """Begin to load, in the model's own thread."""
        self._loop = asyncio.get_running_loop()
        self._thread.submit(self._load_model)

    def close(self) -> None:
        """End after the running token; whoever waits is told so."""
        for job in self._open:
            job.is_left = True
            job.told.put_nowait(shutting_down())
        self._is_loaded.set()

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded."""
        return self._model is not None

    @property
    def waiting(self) -> int:
        """Answers that wait."""
        return sum(job.answers for job in self._open if job.waits)

    async def events(
        self, answers: int, prepare: Callable[[Any], Work], threads: Executor | None = None
    ) -> AsyncGenerator[Any, None]:
        """Stand in line, then tell what the model's work yields; leaving gives up the place, and stops the work.

        Args:
            answers: How many the request asks for.
            prepare: Makes the work out of the model; needs no turn of it, and is called in one of `threads`.
            threads: None are the event loop's own.

        Raises:
            ApiError: When too many wait already, the model cannot do the work, or the server ends.
        """
        waiting = self.waiting
        if waiting and waiting + answers > self._max_waiting:
            message = f"{waiting} answers wait already, and at most {self._max_waiting} may: try again"
            raise ApiError("queue_full", message, None, _RETRY_SECONDS)
        job = _Job(answers)
        self._open.add(job)
        try:
            await self._is_loaded.wait()
            if self._model is None:
                raise shutting_down()
            try:
                job.work = await self._loop.run_in_executor(threads, prepare, self._model)
            except ApiError:
                raise
            except Exception as error:
                raise _refusal(error, has_begun=False) from error
            self._thread.submit(self._do, job)
            while (event := await job.told.get()) is not None:
                if isinstance(event, ApiError):
                    raise event
                yield event
        finally:
            job.is_left = True
            job.work = None  # the job itself stays in the thread's queue until its turn
            self._open.discard(job)

    def _load_model(self) -> None:
        try:
            self._model = self._load()
            _LOG.info("The model is loaded")
        except (ValueError, ModuleNotFoundError) as error:
            self.load_error = str(error)
        except Exception as error:  # noqa: BLE001 - out of memory and the like: the server must end, whatever it is
            _LOG.exception("The model cannot be loaded")
            self.load_error = f"the model cannot be loaded: {type(error).__name__}"
        self._in_loop(self._is_loaded.set)

    def _do(self, job: _Job) -> None:
        work, job.work = job.work, None
        if work is None:  # its request has left the line
            return
        job.waits = has_begun = False
        try:
            with contextlib.closing(work):
                for event in work:
                    has_begun = True
                    if job.is_left:
                        break
                    self._in_loop(job.told.put_nowait, event)
            self._in_loop(job.told.put_nowait, None)
        except Exception as error:  # noqa: BLE001 - one request's trouble must reach its client, and no other
            self._in_loop(job.told.put_nowait, _refusal(error, has_begun))

    def _in_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has ended, and with it everybody who waited
            self._loop.call_soon_threadsafe(call, *arguments)


def _refusal(error: Exception, has_begun: bool) -> ApiError:
    """What a client is told of an exception: the sentence of a refusal; of any other only that there was one.

    Args:
        error: Of the engine.
        has_begun: Whether answers had begun, after which nothing is the request's fault.
    """
    from fusionvl.engine.engine import ContextExceeded  # torch comes with it: not before the model is loaded

    if isinstance(error, ContextExceeded):
        return ApiError("context_length_exceeded", str(error), "messages")
    if isinstance(error, ValueError) and not has_begun:
        return ApiError("invalid_request", str(error))
    _LOG.error("The model failed on a request", exc_info=error)
    return ApiError("generation_failed", "The model failed on this request; the server's log says why. Try again.")
