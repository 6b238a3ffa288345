"""Where a work on shards is done: in this process, in this one of several (`--shard i/n`), or on a Ray cluster.

    tally = complete(ShardJob(partial(make_work, settings, folder), folder, rows), Sharing())

Knows no kind of work; Ray itself is in `cluster`.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from fusionvl.synth.progress import FuseSettings, RunProgress, Tally
from fusionvl.synth.shards import ShardWork, work_through

Spend: TypeAlias = Callable[[int, float], None]
"""Is told of tokens that a work's models read and wrote, and what they cost in US dollars."""

MakeWork: TypeAlias = Callable[[Spend], ShardWork]
"""Makes a work ready, where it is to be done; must be picklable, since that may be elsewhere."""


@dataclass(frozen=True)
class Sharing:
    """How a command's work is shared.

    Attributes:
        share: (i, n): only every n-th shard, from the i-th on.
        ray: Address of a Ray cluster; empty for one that runs here, or else a new one; None to do it in this process.
        ray_workers: Most shards at once on Ray; None for as many as the cluster has room for at the start.
        retry_errors: Whether rows that are errors are tried again.
        shown: Whether to show a progress bar.
    """

    share: tuple[int, int] = (0, 1)
    ray: str | None = None
    ray_workers: int | None = None
    retry_errors: bool = False
    shown: bool = True


@dataclass(frozen=True)
class Needs:
    """What one shard takes of a cluster's node while it is worked on.

    Attributes:
        cpus: Cores: one for each process that computes on them, and at least one.
        gpus: GPUs.
        environment: Names of the variables that hold keys; they travel along.
    """

    cpus: int = 1
    gpus: int = 0
    environment: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.cpus} CPU and {self.gpus} GPU" if self.gpus else f"{self.cpus} CPU"


@dataclass(frozen=True)
class ShardJob:
    """A work on shards, and how it is to be done, wherever that is.

    Attributes:
        make: Makes the work ready.
        folder: Where its journals and finished shards are kept.
        rows: How many rows each shard has, by its number: those there are for the work to do.
        concurrency: How many rows are worked on at once in one place.
        fuse: When to stop by itself; None for never.
        needs: What a place must have.
    """

    make: MakeWork
    folder: Path
    rows: Mapping[int, int]
    concurrency: int = 64
    fuse: FuseSettings | None = None
    needs: Needs = field(default_factory=Needs)


def complete(job: ShardJob, sharing: Sharing) -> Tally:
    """Do what is left to do of a work, or this process's share of it.

    Returns:
        What there is in this share, and what this session cost.

    Raises:
        ValueError: When settings are wrong, another process has one of the shards, the fuse blows, the disk is full or
            the cluster is at fault. What was done is kept.
        ModuleNotFoundError: When something is not installed that is needed; says how to install it.
    """
    first, step = sharing.share
    numbers = [number for number in sorted(job.rows) if number % step == first]
    progress = RunProgress(sum(job.rows[number] for number in numbers), job.fuse, shown=sharing.shown)
    with closing(progress):
        if sharing.ray is not None:
            from fusionvl.synth.cluster import do_on_ray

            do_on_ray(job, numbers, progress, sharing)
            return progress.tally
        with closing(job.make(progress.spent)) as work:
            concurrency, retry_errors = job.concurrency, sharing.retry_errors
            asyncio.run(work_through(work, numbers, progress, concurrency=concurrency, retry_errors=retry_errors))
    return progress.tally
