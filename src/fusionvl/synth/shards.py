"""The one way to work through a run's shards: so many rows at once, each kept in a journal as soon as it is done.

    tally = complete(ShardJob(partial(make_work, settings, folder), folder, rows), Sharing())

Drawing, asking and every filter that looks at one row alone are a `ShardWork`, which is done here, by one of several
processes, or on Ray (see `cluster`). At any moment a shard is in one of three states on disk: nothing or a journal,
`part-00012.jsonl` (begun); a parquet file without a journal (finished); both (begun again for its errors, or ended
between writing the one and removing the other: finishing it once more changes nothing). Killed at any moment, a work
loses what was in flight and goes on from there; of two processes, only one has a shard. Knows no kind of work.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from fusionvl.run_folder import CannotWriteError, RowFile, forget_unfinished, read_rows
from fusionvl.synth.progress import FuseSettings, RunProgress, Tally
from fusionvl.synth.shard_files import Record, count_statuses, is_settled, read_records, shard_path, write_records

Keep: TypeAlias = Callable[[Record], None]


class ShardWork(Protocol):
    """Something that is done to every row of every shard.

    Attributes:
        folder: Where journals and finished files are kept.
        schema: The columns of finished files, as pyarrow has them: `id`, `status` and `reason` among them.
    """

    folder: Path
    schema: Any

    def rows(self, shard: int) -> Iterable[Any]:
        """What is to be done in a shard, in order; each has an `id` that no other has."""

    async def do(self, row: Any, shard: int, known: Record | None, keep: Keep) -> Record:
        """Do it to one row.

        Args:
            row: One of `rows(shard)`.
            shard: Its shard.
            known: What was last kept of it, where that is not the end: it is `open`, or an `error` to be tried again.
            keep: Keeps an `open` state on the way, to go on from after a kill.

        Returns:
            What came of it. Whatever is wrong with this row alone is said there: `error`, with the reason.

        Raises:
            ValueError: For what concerns every row, wrong settings or credentials. All stops, and this row stays open.
        """

    def close(self) -> None:
        """Give back connections and processes."""


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


async def work_through(
    work: ShardWork,
    shards: Iterable[int],
    progress: RunProgress,
    *,
    concurrency: int,
    retry_errors: bool = False,
    patience: float = 0.0,
) -> None:
    """Do all that is left to do in some shards. The next shard is begun before the last rows of one are done.

    Args:
        work: What is done.
        shards: Their numbers.
        progress: Is told of everything.
        concurrency: How many rows are worked on at once.
        retry_errors: Whether rows that are errors are tried again.
        patience: Seconds to wait for a shard that another process has: it may have died just now on a machine whose
            locks are given back late.

    Raises:
        ValueError: When a setting is wrong, another process has one of the shards, the fuse blows or the disk is full.
            What was done is kept, and rows in flight stay open.
    """
    begun: set[_BegunShard] = set()

    def finish_if_complete(shard: _BegunShard) -> None:
        if shard in begun and shard.is_complete:
            shard.finish()
            begun.remove(shard)

    def waiting_rows() -> Iterator[tuple[_BegunShard, Any]]:
        for number in shards:
            if is_settled(work.folder, number, retry_errors):
                progress.found(count_statuses(shard_path(work.folder, number)))
                continue
            shard = _BegunShard(work, number, retry_errors, patience)
            begun.add(shard)
            progress.found(shard.done)
            while shard.waiting:
                yield shard, shard.waiting.popleft()
            finish_if_complete(shard)

    rows = waiting_rows()  # one row after the other to whichever task asks for one
    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(concurrency):
                tasks.create_task(_take(rows, work, progress, finish_if_complete))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        for shard in begun:
            shard.close()


async def _take(
    rows: Iterator[tuple["_BegunShard", Any]],
    work: ShardWork,
    progress: RunProgress,
    finish_if_complete: Callable[["_BegunShard"], None],
) -> None:
    for shard, row in rows:
        record = await work.do(row, shard.number, shard.known.get(row.id), shard.keep)
        shard.keep(record)
        finish_if_complete(shard)
        progress.finished(record["status"], record["reason"])


class _BegunShard:
    """A shard that this process works on, and no other at the same time.

    Attributes:
        number: Of the shard.
        known: What was last kept of each row, by id.
        done: How many rows had each status when it was begun.
        waiting: The others, to be taken from.
    """

    def __init__(self, work: ShardWork, number: int, retry_errors: bool, patience: float) -> None:
        self.number = number
        self._work = work
        self._final = shard_path(work.folder, number)
        try:
            self._journal = RowFile(shard_path(work.folder, number, ".jsonl"), patience)
        except CannotWriteError:
            raise
        except ValueError as error:
            raise ValueError(f"{error}. Several processes share a run with --shard 0/2 and --shard 1/2") from error
        try:
            forget_unfinished(work.folder, self._final.name)
            rows = list(work.rows(number))
            self.known = self._kept()
            self._order = [row.id for row in rows]
            if strange := self.known.keys() - set(self._order):
                raise ValueError(
                    f"{self._journal.path} holds {len(strange)} rows that are not in the plan of this run"
                )
        except BaseException:
            self._journal.close()
            raise
        left = {"open", "error"} if retry_errors else {"open"}
        self.waiting = deque(row for row in rows if self._status(row.id) in left)
        self._unfinished = {row.id for row in self.waiting}
        self.done = Counter(self._status(name) for name in self._order if name not in self._unfinished)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return not self._unfinished

    def keep(self, record: Record) -> None:
        """Write down the state of a row.

        Raises:
            CannotWriteError: When the disk is full.
        """
        self._journal.append(record)
        self.known[record["id"]] = record
        if record["status"] != "open":
            self._unfinished.remove(record["id"])

    def finish(self) -> None:
        """Turn the journal into the finished file.

        Raises:
            CannotWriteError: When it cannot be written; the shard then stays begun.
        """
        write_records(self._final, [self.known[name] for name in self._order], self._work.schema)
        self._journal.path.unlink()
        self.close()

    def close(self) -> None:
        """Leave the shard to another process; what is unfinished goes on another time."""
        self._journal.close()

    def _status(self, name: str) -> str:
        return str(self.known[name]["status"]) if name in self.known else "open"

    def _kept(self) -> dict[str, Record]:
        finished = read_records(self._final, self._work.schema) if self._final.exists() else []
        return {record["id"]: record for record in [*finished, *read_rows(self._journal.path, _record)]}


def _record(values: Record) -> Record:
    if not {"id", "status", "reason"} <= values.keys():
        raise ValueError(f"not a row: id, status and reason are expected, not {sorted(values)}")
    return values
