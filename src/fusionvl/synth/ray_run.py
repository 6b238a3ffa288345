"""The whole run on a Ray cluster: joins it, and has the shards of a recipe made there.

Knows which recipe needs which resources; the dispatcher knows the rest.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fusionvl.data.extras import import_extra
from fusionvl.synth.fuse import Fuse
from fusionvl.synth.manifest import claim, read_manifest
from fusionvl.synth.progress import Progress, Tally
from fusionvl.synth.ray_dispatch import Dispatcher, Needs
from fusionvl.synth.ray_worker import Assignment
from fusionvl.synth.recipe import Diffusion, Endpoint, LocalModel, Procedural, SynthRecipe
from fusionvl.synth.row_files import count_statuses, shard_path
from fusionvl.synth.run import plan_of, prompts_of
from fusionvl.synth.shard import is_settled
from fusionvl.synth.supervision import Supervisor

_SECONDS_TO_ANSWER = 10.0


def synthesize_on_ray(
    recipe: SynthRecipe,
    folder: Path,
    address: str | None,
    *,
    workers: int | None = None,
    share: tuple[int, int] = (0, 1),
    retry_errors: bool = False,
    accept_changed: bool = False,
    show_progress: bool = True,
) -> Tally:
    """Make the rows of a recipe, or those of them that are missing, on all nodes of a cluster.

    Args:
        recipe: What to make, and with what. Its `concurrency`, devices and processes are those of each worker.
        folder: The run folder, on storage that all nodes share.
        address: Of the cluster; None for one that runs here, or else a new one on this machine alone.
        workers: Most of them at once; None for as many as the cluster has room for.
        share: (i, n): only every n-th shard, from the i-th on.
        retry_errors: Whether rows that are errors are tried again.
        accept_changed: Whether the folder may have been begun under other settings; see `claim`.
        show_progress: Whether to show a progress bar.

    Returns:
        What there is in this share of the run, and what this session cost.

    Raises:
        ValueError: When the recipe, the captions, the folder or the cluster are at fault, or the run had to stop.
        ModuleNotFoundError: When Ray is not installed, or something that a step needs; says how to install it.
    """
    ray = import_extra("ray", extra="ray", needed_for="Running on a cluster")
    folder = folder.resolve()
    plan, needs = plan_of(recipe), needs_of(recipe)
    claim(folder, recipe, prompts_of(recipe).hashes, accept_changed)
    assignment = Assignment(recipe, folder, Path.cwd(), read_manifest(folder), _keys(recipe), retry_errors)
    shards = range(share[0], plan.shards, share[1])
    rows = sum(map(plan.rows_in, shards))
    progress = Progress(rows, Tally(), shown=show_progress)
    supervisor = Supervisor(progress, Fuse(recipe.fuse, rows))
    missing = []
    for shard in shards:
        if is_settled(folder, shard, retry_errors):
            supervisor.found(shard, count_statuses(shard_path(folder, shard)))
        else:
            missing.append(shard)
    try:
        if missing:
            with _joined(ray, address):
                Dispatcher(ray, assignment, needs, supervisor, workers).run(missing)
    finally:
        progress.close()
    return progress.tally


def needs_of(recipe: SynthRecipe) -> Needs:
    """What one worker of a recipe takes of a node.

    Raises:
        ValueError: When the recipe's GPUs are not counted from 0: a worker sees only those that it is given.
    """
    devices = [
        device
        for step in (recipe.describe, recipe.questions, recipe.images)
        if isinstance(step, LocalModel | Diffusion)
        for device in step.devices
    ]
    drawing = recipe.images.processes if isinstance(recipe.images, Procedural) else 0
    gpus = {"cuda:0" if device == "cuda" else device for device in devices if device != "cpu"}
    if gpus != {f"cuda:{number}" for number in range(len(gpus))}:
        raise ValueError(
            f"devices: on a cluster each worker counts its own GPUs from cuda:0 on, and {sorted(gpus)} leaves some out"
        )
    return Needs(max(1, drawing + devices.count("cpu")), len(gpus))


@contextmanager
def _joined(ray: Any, address: str | None) -> Iterator[None]:
    """Joined to a cluster.

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


def _keys(recipe: SynthRecipe) -> dict[str, str]:
    """Variables that hold the keys of endpoints. They travel as data: a runtime environment would be shown around."""
    names = {step.api_key_variable for step in (recipe.describe, recipe.questions) if isinstance(step, Endpoint)}
    return {name: os.environ[name] for name in names if name in os.environ}
