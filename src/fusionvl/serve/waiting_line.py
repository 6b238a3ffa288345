"""One model in one thread, and the bounded line of requests before it. Knows no HTTP and nothing of what is asked.

The thread loads the model, then takes jobs in order. What a job's work yields goes to the event loop, where its
request waits; when it does no more, the work is closed at its next event.
"""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

from fusionvl.serve.errors import ApiError

_LOG = logging.getLogger("fusionvl.serve")
_RETRY_SECONDS = 2

Work = Generator[Any, None, None]
"""What the model does for a request, event by event; closing it stops the model."""


class Job:
    """A request's place in the line.

    Args:
        answers: How many it asks for.

    Attributes:
        waits: Whether the model has not begun it.
        is_left: Whether nobody waits for it any more.
        work: What the model does for it; until it begins.
    """

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.waits = True
        self.is_left = False
        self.work: Work | None = None
        self._told: asyncio.Queue[Any] = asyncio.Queue()

    def tell(self, event: Any) -> None:
        """Pass on an event, None at the end, or the error that ends it; in the event loop's thread."""
        self._told.put_nowait(event)

    async def next(self) -> Any:
        """The next event; None when there are no more.

        Raises:
            ApiError: When the request cannot be answered.
        """
        event = await self._told.get()
        if isinstance(event, ApiError):
            raise event
        return event


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
        self._open: set[Job] = set()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()

    def start(self) -> None:
        """Begin to load, in the model's own thread."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, name="model", daemon=True).start()

    def close(self) -> None:
        """End after the running token; whoever waits is told so."""
        for job in self._open:
            job.is_left = True
            job.tell(_ended())
        self._is_loaded.set()
        self._jobs.put(None)

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded."""
        return self._model is not None

    @property
    def waiting(self) -> int:
        """Answers that wait."""
        return sum(job.answers for job in self._open if job.waits)

    async def model(self) -> Any:
        """The model, once it is loaded.

        Raises:
            ApiError: When it is not, and will not be.
        """
        await self._is_loaded.wait()
        if self._model is None:
            raise _ended()
        return self._model

    @contextlib.contextmanager
    def place(self, answers: int) -> Iterator[Job]:
        """A place in the line; leaving the block gives it up, and stops the work.

        Raises:
            ApiError: When too many wait already.
        """
        waiting = self.waiting
        if waiting and waiting + answers > self._max_waiting:
            message = f"{waiting} answers wait already, and at most {self._max_waiting} may: try again"
            raise ApiError("queue_full", message, None, _RETRY_SECONDS)
        job = Job(answers)
        self._open.add(job)
        try:
            yield job
        finally:
            job.is_left = True
            job.work = None  # the job itself stays in the queue until its turn
            self._open.discard(job)

    def begin(self, job: Job, work: Work) -> None:
        """Let the model do the job's work when its turn comes."""
        job.work = work
        self._jobs.put(job)

    def _run(self) -> None:
        try:
            self._model = self._load()
            _LOG.info("The model is loaded")
        except (ValueError, ModuleNotFoundError) as error:
            self.load_error = str(error)
        except Exception as error:  # noqa: BLE001 - out of memory and the like: the server must end, whatever it is
            _LOG.exception("The model cannot be loaded")
            self.load_error = f"the model cannot be loaded: {type(error).__name__}"
        self._in_loop(self._is_loaded.set)
        while (job := self._jobs.get()) is not None:
            self._do(job)

    def _do(self, job: Job) -> None:
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
                    self._in_loop(job.tell, event)
            self._in_loop(job.tell, None)
        except Exception as error:  # noqa: BLE001 - one request's trouble must reach its client, and no other
            self._in_loop(job.tell, refusal(error, has_begun))

    def _in_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has ended, and with it everybody who waited
            self._loop.call_soon_threadsafe(call, *arguments)


def refusal(error: Exception, has_begun: bool) -> ApiError:
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


def _ended() -> ApiError:
    return ApiError("shutting_down", "The server is shutting down: try again elsewhere or later", None, 5)
