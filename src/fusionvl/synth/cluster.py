"""A work's shards on all nodes of a Ray cluster: places that each take one shard after the other.

A place loads its models once. When its process or node is lost, another one takes over the shard, which goes on from
the journal, in a folder that all nodes see. Knows no kind of work.
"""

import asyncio
import logging
import os
import platform
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fusionvl.data.extras import import_extra
from fusionvl.synth.progress import RunProgress, Tally
from fusionvl.synth.shard_files import count_statuses, is_settled, shard_path
from fusionvl.synth.shards import Needs, ShardJob, ShardWork, Sharing, work_through

_REPEATS = 3  # so often a shard may be lost with its process before that is taken for the shard's fault
_PATIENCE = 120.0  # file systems of clusters give back the locks of a dead node within about this time
_SECONDS_TO_ANSWER = 10.0
_SHARED = "start from a folder, and write into one, that all nodes of the cluster share"


class ShardPlace:
    """A process on a node; its work is made ready once, with its first shard.

    Args:
        job: What is to be done.
        working_folder: Where the command was started: what paths in its settings start from.
        keys: Variables of the environment. They travel as data: a runtime environment would be shown around.
        retry_errors: Whether rows that are errors are tried again.
    """

    def __init__(self, job: ShardJob, working_folder: Path, keys: dict[str, str], retry_errors: bool) -> None:
        self._job = job
        self._working_folder = working_folder
        self._keys = keys
        self._retry_errors = retry_errors
        self._progress = RunProgress(max(job.rows.values()), job.fuse, shown=False)
        self._work: ShardWork | None = None
        self._loop = asyncio.Runner()  # connections of a work's clients live as long as their loop

    def do(self, shard: int) -> Tally:
        """Do what is left to do in a shard.

        Raises:
            ValueError: When this node does not see the folders; else see `shards.complete`.
        """
        if self._work is None:
            self._work = self._make_work()
        self._progress.tally = Tally()
        left = work_through(
            self._work,
            [shard],
            self._progress,
            concurrency=self._job.concurrency,
            retry_errors=self._retry_errors,
            patience=_PATIENCE,
        )
        self._loop.run(left)
        return self._progress.tally

    def _make_work(self) -> ShardWork:
        folders = (self._working_folder, self._job.folder)
        if missing := [folder for folder in folders if not folder.is_dir()]:
            raise ValueError(f"{platform.node()} does not see the folder {missing[0]}: {_SHARED}")
        os.chdir(self._working_folder)
        os.environ.update(self._keys)
        return self._job.make(self._progress.spent)


def do_on_ray(job: ShardJob, numbers: Sequence[int], progress: RunProgress, sharing: Sharing) -> None:
    """Do what is left to do in some shards on a cluster; see `shards.complete`.

    Raises:
        ValueError: When a place says so, the cluster cannot be joined or has no room, or a shard takes down one
            process after the other. The other places are ended; what was done is kept.
        ModuleNotFoundError: When Ray is not installed, or a node lacks what the work needs.
    """
    ray = import_extra("ray", extra="ray", needed_for="Running on a cluster")
    left: deque[int] = deque()
    for number in numbers:
        if is_settled(job.folder, number, sharing.retry_errors):
            progress.found(count_statuses(shard_path(job.folder, number)))
        else:
            left.append(number)
    if not left:
        return
    job.folder.mkdir(parents=True, exist_ok=True)
    keys = {name: os.environ[name] for name in job.needs.environment if name in os.environ}
    with _joined(ray, sharing.ray or None):
        room = _room(ray, job.needs)
        place = ray.remote(ShardPlace).options(
            num_cpus=job.needs.cpus,
            num_gpus=job.needs.gpus,
            scheduling_strategy="SPREAD",
            runtime_env=_import_paths(),
        )
        make = partial(place.remote, ray.put(job), Path.cwd(), keys, sharing.retry_errors)
        _hand_out(ray, left, make, min(len(left), sharing.ray_workers or room), progress)


def _hand_out(ray: Any, left: deque[int], make: Callable[[], Any], count: int, progress: RunProgress) -> None:
    """Give each of so many places a shard as soon as it is there, and the next one when that is done."""
    starting: dict[Any, Any] = {}
    busy: dict[Any, tuple[Any, int]] = {}
    losses: Counter[int] = Counter()
    while left or busy:
        while len(starting) + len(busy) < min(count, len(left) + len(busy)):
            place = make()
            starting[place.__ray_ready__.remote()] = place
        (told,), _ = ray.wait([*starting, *busy])
        if told in starting:
            place = starting.pop(told)
        else:
            place, shard = busy.pop(told)
            try:
                progress.add(ray.get(told))
            except ray.exceptions.RayTaskError as error:
                is_told = isinstance(error.cause, ValueError | ModuleNotFoundError | OSError)
                raise (error.cause if is_told else error) from None
            except ray.exceptions.RayError as error:
                ray.kill(place)  # it may only be out of reach
                losses[shard] += 1
                if losses[shard] > _REPEATS:
                    raise _lost(error) from error
                left.append(shard)
                continue
        if left:
            shard = left.popleft()
            busy[place.do.remote(shard)] = place, shard
        else:
            ray.kill(place)


def _lost(error: Exception) -> ValueError:
    return ValueError(
        f"A shard was lost {_REPEATS + 1} times with its process or node: out of memory? Ray says: "
        f"{' '.join(str(error).split())}. What was done is kept: run again to go on"
    )


@contextmanager
def _joined(ray: Any, address: str | None) -> Iterator[None]:
    """Joined to a cluster; leaving it ends what still runs.

    Raises:
        ValueError: When there is none.
    """
    if address is not None and address not in ("auto", "local"):
        _check_answers(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here reports to nobody
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"No Ray cluster could be joined ({address or 'this machine'}): {' '.join(str(error).split())}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Ray itself tries an address where nothing listens for many minutes.

    Raises:
        ValueError: When nothing does.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--ray takes HOST:PORT, as `ray start` prints it, or auto, not {address}")
    try:
        socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ValueError(f"No Ray cluster answers at {address}: {error}. Start one with `ray start --head`") from error


def _room(ray: Any, needs: Needs) -> int:
    """How many places the cluster has room for, whatever runs there now.

    Raises:
        ValueError: When no node is large enough: a place that fits on none would wait for ever.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {name: count for name, count in (("CPU", needs.cpus), ("GPU", needs.gpus)) if count}
    room = sum(min(int(node.get(name, 0) // count) for name, count in wanted.items()) for node in nodes)
    if not room:
        there = ", ".join(f"{node.get('CPU', 0):g} CPU and {node.get('GPU', 0):g} GPU" for node in nodes)
        raise ValueError(f"No node of the cluster has room for a shard, which needs {needs}; it has {there}")
    return room


def _import_paths() -> dict[str, Any]:
    """Places import what this process does, also where that is not installed."""
    return {"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}} if os.environ.get("PYTHONPATH") else {}
