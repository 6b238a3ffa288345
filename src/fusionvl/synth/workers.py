"""Processes that each hold a model, or a renderer, and answer requests in batches: one process per device.

Requests may come from any number of tasks; a batch is what waits when a process becomes free. Knows nothing of what is
computed. A worker ends by itself when the process that started it is gone, however that ended.
"""

import asyncio
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, TypeVar

Request = TypeVar("Request")
Reply = TypeVar("Reply")

Compute = Callable[[Sequence[Request]], list[Reply]]
"""Answers a batch of requests, in order."""


class WorkError(Exception):
    """A request could not be carried out; says why in one sentence."""


class Workers(Generic[Request, Reply]):
    """One process per device.

    Args:
        build: Called in each process with its device; what it returns answers batches. Must be picklable.
        devices: Where, see `devices_here`; may name one several times.
        batch_size: Most requests of a batch.
    """

    def __init__(
        self, build: Callable[[str], Compute[Request, Reply]], devices: Sequence[str], batch_size: int
    ) -> None:
        # A fresh process: a forked one would inherit locks of threads, and CUDA does not survive a fork.
        spawn = multiprocessing.get_context("spawn")
        self._idle = [
            ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin, initargs=(build, device))
            for device in devices_here(devices)
        ]
        self._all = tuple(self._idle)
        self._batch_size = batch_size
        self._waiting: deque[tuple[Request, asyncio.Future[Reply]]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, request: Request) -> Reply:
        """Have a request answered.

        Raises:
            WorkError: When computing the answer raised an error.
            ValueError: When a worker could not start, or died.
        """
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        # Tasks that are ready now may have requests too: let them join the batch.
        asyncio.get_running_loop().call_soon(self._start)
        return await answer

    def close(self) -> None:
        """End the processes; what they are at is lost."""
        for process in self._all:
            process.shutdown(wait=False, cancel_futures=True)
        for process in self._all:
            process.shutdown(wait=True)

    def _start(self) -> None:
        while self._idle and self._waiting:
            count = min(self._batch_size, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            task = asyncio.create_task(self._serve(self._idle.pop(), batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _serve(self, process: ProcessPoolExecutor, batch: list[tuple[Request, "asyncio.Future[Reply]"]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            replies = await loop.run_in_executor(process, _answer, [request for request, _ in batch])
        except BrokenProcessPool as error:
            replies = [ValueError(f"A worker process ended (out of memory?): {error}")] * len(batch)
        except Exception as error:  # noqa: BLE001 - say a reply that cannot travel: who waits here would wait for ever
            replies = [WorkError(_told(error))] * len(batch)
        finally:
            self._idle.append(process)
        for (_, answer), reply in zip(batch, replies, strict=True):
            if answer.cancelled():
                continue
            if isinstance(reply, Exception):
                answer.set_exception(reply)
            else:
                answer.set_result(reply)
        self._start()


def devices_here(names: Iterable[str]) -> list[str]:
    """The devices of these names: `cpu`, `cuda:0`, ...; `auto` is every GPU of this machine, or else the CPU."""
    return [device for name in names for device in (_gpus() or ["cpu"] if name == "auto" else [name])]


def _gpus() -> list[str]:
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


_compute: Compute[Any, Any] | None = None
_no_start: Exception | None = None


def _begin(build: Callable[[str], Compute[Any, Any]], device: str) -> None:
    global _compute, _no_start
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _compute = build(device)
    except Exception as error:  # noqa: BLE001 - told with the first request, not as a crash
        _no_start = error if isinstance(error, ValueError | ImportError) else ValueError(_told(error))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _answer(requests: list[Any]) -> list[Any]:
    """Replies, with an exception in the place of each that failed."""
    if _compute is None:
        return [_no_start] * len(requests)
    try:
        replies = _compute(requests)
        if len(replies) != len(requests):
            raise ValueError(f"{len(replies)} replies to {len(requests)} requests")
        return replies
    except Exception as error:  # noqa: BLE001 - libraries of models raise nearly anything; it is this request's reason
        if len(requests) > 1:  # one bad request must not spoil the others of its batch
            return [reply for request in requests for reply in _answer([request])]
        return [WorkError(_told(error))]


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")  # some say no more than their name
