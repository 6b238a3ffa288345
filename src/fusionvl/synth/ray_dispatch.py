"""Hands out shards to workers on all nodes of a Ray cluster, and follows what they do.

A worker that is lost, with its process or its node, costs what was in flight: its shard goes to another worker, which
goes on from the journal. Of Ray it takes actors alone: the fixed pools of Ray Data wait for a lost actor to come back,
and its checkpoints are coarser than the journal. Knows no recipe and no steps.
"""

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from fusionvl.synth.ray_worker import Assignment, ShardWorker
from fusionvl.synth.supervision import Supervisor

logger = logging.getLogger(__name__)

_LOSSES = 3  # so often in a row a shard may be lost without a row finished, or a worker before it is ready
_PATIENCE = 120.0  # file systems of clusters give back the locks of a dead node within about this time
_SECONDS_BETWEEN_LOOKS = 5.0
_SECONDS_BEFORE_TOLD = 30.0


@dataclass(frozen=True)
class Needs:
    """What one worker takes of a node.

    Attributes:
        cpus: Cores: one for each process that computes on them, and at least one.
        gpus: GPUs.
    """

    cpus: int
    gpus: int

    def __str__(self) -> str:
        return f"{self.cpus} CPU and {self.gpus} GPU" if self.gpus else f"{self.cpus} CPU"


class Dispatcher:
    """Hands out shards.

    Args:
        ray: The module, joined to a cluster.
        assignment: What workers are told.
        needs: What each takes of a node.
        supervisor: Takes their news.
        most: Workers at once; None for as many as there is room for.
    """

    def __init__(
        self, ray: ModuleType, assignment: Assignment, needs: Needs, supervisor: Supervisor, most: int | None
    ) -> None:
        self._ray: Any = ray
        self._needs = needs
        self._supervisor = supervisor
        self._most = most
        self._worker_class = ray.remote(ShardWorker)
        self._assignment: Any = ray.put(assignment)
        self._waiting: deque[int] = deque()
        self._starting: dict[Any, Any] = {}  # what tells that it is ready: worker
        self._idle: list[Any] = []
        self._working: dict[Any, tuple[Any, int]] = {}  # its news: worker, shard
        self._losses: Counter[int | None] = Counter()  # by shard; None for workers that were not ready yet
        self._room = _Room(ray, needs)
        self._last_work = time.monotonic()

    def run(self, shards: Sequence[int]) -> None:
        """Have shards made.

        Raises:
            ValueError: When a worker says so, the fuse blows, the cluster has no room, or a shard takes down one
                worker after the other. Other workers are ended; what was made is kept.
            ModuleNotFoundError: When a node lacks what a step needs.
        """
        self._waiting.extend(shards)
        try:
            while self._waiting or self._working:
                self._hand_out()
                self._start()
                self._follow()
        finally:
            for worker in (*self._starting.values(), *self._idle, *(worker for worker, _ in self._working.values())):
                self._ray.kill(worker)

    def _hand_out(self) -> None:
        while self._idle and self._waiting:
            worker, shard = self._idle.pop(), self._waiting.popleft()
            patience = _PATIENCE if self._losses[shard] else 0.0
            self._working[worker.make.options(num_returns="streaming").remote(shard, patience)] = (worker, shard)

    def _start(self) -> None:
        """Start as many workers as there is room and work for."""
        room = self._room()
        if not room and not self._working:
            raise ValueError(
                f"No node of the cluster has room for a worker, which needs {self._needs}; it has "
                f"{self._room.described}. Nothing is lost: run again when there are nodes"
            )
        wanted = min(room, self._most or room, len(self._waiting) + len(self._working))
        for _ in range(wanted - len(self._starting) - len(self._idle) - len(self._working)):
            options = {
                "num_cpus": self._needs.cpus,
                "num_gpus": self._needs.gpus,
                "scheduling_strategy": "SPREAD",
                "runtime_env": _import_paths(),
            }
            worker = self._worker_class.options(**options).remote(self._assignment)
            self._starting[worker.prepare.remote()] = worker

    def _follow(self) -> None:
        """Wait for the next thing to happen, a second at most, and take it in."""
        happened, _ = self._ray.wait([*self._starting, *self._working], timeout=1.0)
        for source in happened:
            try:
                if source in self._starting:
                    self._take_ready(source)
                else:
                    self._take_news(source)
            except self._ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, ValueError | ModuleNotFoundError):
                    raise error.cause from None
                raise
            except (self._ray.exceptions.RayActorError, self._ray.exceptions.ObjectLostError) as error:
                self._lose(source, error)
        self._tell_if_waiting()

    def _take_ready(self, source: Any) -> None:
        self._ray.get(source)
        self._idle.append(self._starting.pop(source))
        self._losses[None] = 0

    def _take_news(self, source: Any) -> None:
        try:
            news = self._ray.get(next(source))
        except StopIteration:
            worker, _ = self._working.pop(source)
            self._idle.append(worker)
            return
        if news.finished:
            self._losses[self._working[source][1]] = 0
        self._supervisor.take(news)

    def _lose(self, source: Any, error: Exception) -> None:
        """Give the shard of a lost worker back.

        Raises:
            ValueError: When this happens again and again.
        """
        worker, shard = self._working.pop(source) if source in self._working else (self._starting.pop(source), None)
        self._ray.kill(worker)  # when it only cannot be reached, it must not go on
        self._losses[shard] += 1
        if shard is not None:
            self._waiting.appendleft(shard)
        if self._losses[shard] == _LOSSES:
            what = "before they were ready" if shard is None else f"at shard {shard}, without a row finished"
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{_LOSSES} workers in a row were lost {what}: out of memory? Ray says: {reason}. Nothing is lost: "
                "run again to go on"
            ) from error
        logger.warning("A worker was lost; %s", "another is started" if shard is None else f"shard {shard} goes on")

    def _tell_if_waiting(self) -> None:
        now = time.monotonic()
        if self._working:
            self._last_work = now
        elif now - self._last_work > _SECONDS_BEFORE_TOLD:
            self._last_work = now
            logger.warning("Waiting for room on the cluster, or for workers that load their models")


class _Room:
    """For how many workers a cluster has room, whoever uses it now; looked up every few seconds."""

    def __init__(self, ray: ModuleType, needs: Needs) -> None:
        self._ray: Any = ray
        self._needs = needs
        self._looked = float("-inf")
        self._nodes: list[dict[str, float]] = []

    def __call__(self) -> int:
        """So many workers fit."""
        if time.monotonic() - self._looked > _SECONDS_BETWEEN_LOOKS:
            self._nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self._looked = time.monotonic()
        return sum(map(self._fits, self._nodes))

    def _fits(self, node: dict[str, float]) -> int:
        fits = node.get("CPU", 0) // self._needs.cpus
        return int(min(fits, node.get("GPU", 0) // self._needs.gpus) if self._needs.gpus else fits)

    @property
    def described(self) -> str:
        """What each node has."""
        return ", ".join(f"{node.get('CPU', 0):g} CPU and {node.get('GPU', 0):g} GPU" for node in self._nodes)


def _import_paths() -> dict[str, Any]:
    """Workers import what this process does, also where that is not installed."""
    return {"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}} if os.environ.get("PYTHONPATH") else {}
