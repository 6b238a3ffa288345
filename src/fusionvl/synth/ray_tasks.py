"""A work's shards on all nodes of a Ray cluster: one task a shard, which Ray repeats when its process or node is lost.

What a lost task kept is in the journal, in a folder that all nodes see; what takes its place goes on from there. Of
Ray it takes plain tasks alone. Knows no kind of work.
"""

import logging
import os
import platform
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from fusionvl.data.extras import import_extra
from fusionvl.synth.distribution import Needs, ShardJob, Sharing, do_here
from fusionvl.synth.progress import RunProgress, Tally
from fusionvl.synth.shards import count_statuses, is_settled, shard_path

_REPEATS = 3  # so often a shard may be lost with its process before that is taken for the shard's fault
_PATIENCE = 120.0  # file systems of clusters give back the locks of a dead node within about this time
_MOST = 1000  # tasks that Ray is told of at once; those that no node has room for wait there
_SECONDS_TO_ANSWER = 10.0
_SHARED = "start from a folder, and write into one, that all nodes of the cluster share"


@dataclass(frozen=True)
class TaskOrder:
    """What every task of a work is told.

    Attributes:
        job: What is to be done.
        working_folder: Where the command was started: what paths in its settings start from.
        environment: Variables that hold keys. They travel as data: a runtime environment would be shown around.
        retry_errors: Whether rows that are errors are tried again.
    """

    job: ShardJob
    working_folder: Path
    environment: dict[str, str]
    retry_errors: bool


def do_on_ray(job: ShardJob, numbers: Sequence[int], progress: RunProgress, sharing: Sharing) -> None:
    """Do what is left to do in some shards on a cluster; see `distribution.complete`.

    Raises:
        ValueError: When a task says so, the cluster cannot be joined or has no room, or a shard takes down one process
            after the other. The other tasks are ended; what was done is kept.
        ModuleNotFoundError: When Ray is not installed, or a node lacks what the work needs.
    """
    ray = import_extra("ray", extra="ray", needed_for="Running on a cluster")
    left = []
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
        _check_room(ray, job.needs)
        order = ray.put(TaskOrder(job, Path.cwd(), keys, sharing.retry_errors))
        task = ray.remote(_do_shard).options(
            num_cpus=job.needs.cpus,
            num_gpus=job.needs.gpus,
            max_retries=_REPEATS,
            scheduling_strategy="SPREAD",
            runtime_env=_import_paths(),
        )
        waiting = iter(left)
        running = [task.remote(order, number) for number in islice(waiting, sharing.ray_workers or _MOST)]
        while running:
            (done,), running = ray.wait(running)
            progress.add(_result(ray, done))
            running += [task.remote(order, number) for number in islice(waiting, 1)]


def _do_shard(order: TaskOrder, number: int) -> Tally:
    """What runs on a node.

    Raises:
        ValueError: When this node does not see the folders; else see `distribution.complete`.
    """
    folders = (order.working_folder, order.job.folder)
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise ValueError(f"{platform.node()} does not see the folder {missing[0]}: {_SHARED}")
    os.chdir(order.working_folder)
    os.environ.update(order.environment)
    progress = RunProgress(order.job.rows[number], order.job.fuse, shown=False)
    do_here(order.job, [number], progress, retry_errors=order.retry_errors, patience=_PATIENCE)
    return progress.tally


def _result(ray: Any, done: Any) -> Tally:
    try:
        tally: Tally = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ValueError | ModuleNotFoundError | OSError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"A shard was lost {_REPEATS + 1} times with its process or node: out of memory? Ray says: {reason}. What "
            "was done is kept: run again to go on"
        ) from error
    return tally


@contextmanager
def _joined(ray: Any, address: str | None) -> Iterator[None]:
    """Joined to a cluster; leaving it ends the tasks that still run.

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


def _check_room(ray: Any, needs: Needs) -> None:
    """A task that fits on no node would wait for ever.

    Raises:
        ValueError: When no node is large enough, whatever runs there now.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= needs.cpus and node.get("GPU", 0) >= needs.gpus for node in nodes):
        there = ", ".join(f"{node.get('CPU', 0):g} CPU and {node.get('GPU', 0):g} GPU" for node in nodes)
        raise ValueError(f"No node of the cluster has room for a shard, which needs {needs}; it has {there}")


def _import_paths() -> dict[str, Any]:
    """Tasks import what this process does, also where that is not installed."""
    return {"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}} if os.environ.get("PYTHONPATH") else {}
