"""Several models by name, each in its own process.

A model is loaded when first asked for; the least recently used one is unloaded when memory runs out; a dead one is
started again. Knows bytes, names and processes; knows no HTTP and no conversations.
"""

import asyncio
import contextlib
import json
import logging
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusionvl.serve.backend import ModelLoad
from fusionvl.serve.errors import ApiError
from fusionvl.serve.settings import Limits, ServedModel, WorkerSettings
from fusionvl.serve.worker import Loader
from fusionvl.serve.worker_process import LoadError, WorkerProcess

_LOG = logging.getLogger("fusionvl.serve")
_LONGEST_PAUSE = 30.0
_GOOD_RUN_SECONDS = 60.0
_BYTES_OF_DTYPE = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass
class Slot:
    """A model's place: its process, when it has one, and who uses it.

    Attributes:
        model: Name and source.
        worker: The running process.
        answers: Answers wanted of it at the moment, waiting ones among them.
        last_used: When an answer ended last, in monotonic seconds.
        deaths: Of its process, in a row.
        restarts: Of its process, ever.
    """

    model: ServedModel
    worker: WorkerProcess | None = None
    answers: int = 0
    last_used: float = 0.0
    started: float = 0.0
    deaths: int = 0
    restarts: int = 0
    loading: asyncio.Task[WorkerProcess] | None = field(default=None, repr=False)

    @property
    def is_loaded(self) -> bool:
        """Whether it can answer at once."""
        return self.worker is not None and self.worker.is_alive


class ModelPool:
    """The models of a server.

    Args:
        models: The first is loaded by `load_first`.
        loader: Loads a model in its process.
        settings: How models run.
        limits: How many answers may wait.
    """

    def __init__(
        self, models: tuple[ServedModel, ...], loader: Loader, settings: WorkerSettings, limits: Limits
    ) -> None:
        self.slots = {model.name: Slot(model) for model in models}
        self._loader = loader
        self._settings = settings
        self._limits = limits
        self._memory = asyncio.Lock()
        self._closed = False
        self._began = False

    @property
    def names(self) -> tuple[str, ...]:
        """Of all models, loaded or not."""
        return tuple(self.slots)

    @property
    def is_ready(self) -> bool:
        """Whether the first model was loaded once and is not being replaced; unloaded, it may come back."""
        return self._began and next(iter(self.slots.values())).loading is None

    async def load_first(self) -> None:
        """Load the first model.

        Raises:
            LoadError: When it cannot be loaded.
        """
        await self._worker(next(iter(self.slots.values())))
        self._began = True

    @contextlib.asynccontextmanager
    async def use(self, name: str, answers: int = 1) -> AsyncIterator[WorkerProcess]:
        """A model's worker, loaded if it is not, and kept until the block is left.

        Args:
            name: The model's.
            answers: How many are wanted of it.

        Raises:
            ApiError: When there is no such model, too many wait for it, or it cannot be loaded.
        """
        slot = self.slots.get(name)
        if slot is None:
            known = ", ".join(self.slots)
            raise ApiError("model_not_found", f"There is no model {name[:100]!r}: there are {known}", "model")
        bound = self._limits.waiting + self._settings.max_batch
        if slot.answers + answers > bound:
            raise ApiError(
                "queue_full", f"{slot.answers} answers wait or run, the bound is {bound}: try again", None, 2
            )
        slot.answers += answers
        try:
            yield await self._worker_or_error(slot)
        finally:
            slot.answers -= answers
            slot.last_used = time.monotonic()

    def loads(self) -> dict[str, ModelLoad]:
        """How busy each model was at its last sign of life."""
        return {name: _load_of(slot) for name, slot in self.slots.items()}

    async def close(self) -> None:
        """Unload all, for good."""
        self._closed = True
        loading = [slot.loading for slot in self.slots.values() if slot.loading is not None]
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)
        workers = [slot.worker for slot in self.slots.values() if slot.worker is not None]
        await asyncio.gather(*(worker.stop() for worker in workers))

    async def _worker_or_error(self, slot: Slot) -> WorkerProcess:
        try:
            return await self._worker(slot)
        except LoadError as error:  # the reason may name folders of this machine: it is for the log
            _LOG.error("%s cannot be loaded: %s", slot.model.name, error)
            raise ApiError(
                "model_unavailable", f"The model {slot.model.name} cannot be loaded: ask who runs the server", "model"
            ) from error

    async def _worker(self, slot: Slot) -> WorkerProcess:
        if slot.worker is not None and slot.worker.is_alive:
            return slot.worker
        if slot.loading is None:
            slot.loading = asyncio.create_task(self._load(slot))
            slot.loading.add_done_callback(lambda task: self._loaded(slot, task))
        return await asyncio.shield(slot.loading)

    def _loaded(self, slot: Slot, task: "asyncio.Task[WorkerProcess]") -> None:
        slot.loading = None
        if not task.cancelled():
            task.exception()  # who waits is told; when nobody does, it is no news

    async def _load(self, slot: Slot) -> WorkerProcess:
        if slot.deaths:
            await asyncio.sleep(min(2.0 ** (slot.deaths - 1) - 1, _LONGEST_PAUSE))
        async with self._memory:
            await self._make_room(slot, estimated_bytes(slot.model.source, self._settings))
            worker = WorkerProcess(
                slot.model.source, self._loader, self._settings, self._limits, lambda dead: self._died(slot, dead)
            )
            await worker.start()
            slot.worker, slot.started = worker, time.monotonic()
            try:
                await self._make_room(slot, worker.num_bytes)
            except ApiError:
                slot.worker = None
                await worker.stop()
                raise
            _LOG.info("%s is loaded: %.2f GB", slot.model.name, worker.num_bytes / 1e9)
            return worker

    def _died(self, slot: Slot, worker: WorkerProcess) -> None:
        if slot.worker is not worker:
            return
        slot.worker = None
        slot.restarts += 1
        slot.deaths = slot.deaths + 1 if time.monotonic() - slot.started < _GOOD_RUN_SECONDS else 1
        if not self._closed and slot.loading is None:
            self._replace(slot)

    def _replace(self, slot: Slot) -> None:
        """Load again until it is there, with longer and longer pauses; until then the server is not ready."""
        slot.loading = asyncio.create_task(self._load(slot))
        slot.loading.add_done_callback(lambda task: self._replaced(slot, task))

    def _replaced(self, slot: Slot, task: "asyncio.Task[WorkerProcess]") -> None:
        self._loaded(slot, task)
        if not task.cancelled() and task.exception() is not None and not self._closed:
            _LOG.error("%s cannot be loaded again: %s", slot.model.name, task.exception())
            slot.deaths += 1
            self._replace(slot)

    async def _make_room(self, slot: Slot, num_bytes: int) -> None:
        """Unload the least recently used idle models until `num_bytes` fit."""
        budget = self._settings.memory_bytes
        if budget is None:
            return
        if num_bytes > budget:
            raise LoadError(
                f"{slot.model.name} takes {num_bytes / 1e9:.2f} GB, all models together may take {budget / 1e9:.2f} GB"
            )
        while True:
            others = [other for other in self.slots.values() if other is not slot and other.worker is not None]
            held = sum(other.worker.num_bytes for other in others if other.worker is not None)
            if held + num_bytes <= budget:
                return
            idle = [other for other in others if not other.answers]
            if not idle:
                raise ApiError(
                    "memory_full",
                    f"There is no memory for {slot.model.name} while other models answer: try again",
                    "model",
                    5,
                )
            oldest = min(idle, key=lambda other: other.last_used)
            worker, oldest.worker = oldest.worker, None
            _LOG.info("%s is unloaded to make room for %s", oldest.model.name, slot.model.name)
            if worker is not None:
                await worker.stop()


def _load_of(slot: Slot) -> ModelLoad:
    worker = slot.worker
    if worker is None or not worker.is_alive:
        return ModelLoad(0, 0, 0, 0, slot.restarts)
    return ModelLoad(1, worker.beat.waiting, worker.beat.running, worker.num_bytes, slot.restarts)


def estimated_bytes(source: str, settings: WorkerSettings) -> int:
    """Memory of a folder's model once loaded, from the heads of its files; weights not on this machine count 0."""
    width = _BYTES_OF_DTYPE.get(settings.dtype)  # None: as the file has it
    files = sorted(Path(source).glob("*.safetensors")) if Path(source).is_dir() else []
    weights = sum(_tensor_bytes(tensor, width) for path in files for tensor in _tensors(path))
    return weights + settings.image_cache_bytes


def _tensors(path: Path) -> list[dict[str, Any]]:
    """The entries of a safetensors file's head; none if it is broken, which loading it will say better."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            head = json.loads(file.read(min(length, 2**27)))
    except (OSError, struct.error, ValueError):
        return []
    return [tensor for name, tensor in head.items() if name != "__metadata__"]


def _tensor_bytes(tensor: dict[str, Any], width: int | None) -> int:
    if width is None:
        start, end = tensor["data_offsets"]
        return int(end - start)
    count = 1
    for side in tensor["shape"]:
        count *= side
    return count * width
