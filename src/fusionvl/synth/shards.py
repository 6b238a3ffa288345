"""The one way to work through a run's shards: so many rows at once, each kept in a journal as soon as it is done.

Drawing, asking and every filter that looks at one row alone are a `ShardWork`; `distribution.complete` has it done
here, by one of several processes, or on Ray. At any moment a shard is in one of three states on disk: nothing or a
journal, `part-00012.jsonl` (begun); a parquet file without a journal (finished); both (begun again for its errors, or
ended between writing the one and removing the other: finishing it once more changes nothing). Killed at any moment, a
work loses what was in flight and goes on from there; of two processes, only one has a shard. Knows no kind of work.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from fusionvl.run_folder import CannotWriteError, RowFile, read_rows
from fusionvl.synth.progress import RunProgress
from fusionvl.synth.shard_files import Record, count_statuses, is_settled, shard_path

Keep: TypeAlias = Callable[[Record], None]


class ShardWork(Protocol):
    """Something that is done to every row of every shard.

    Attributes:
        folder: Where journals and finished files are kept.
    """

    folder: Path

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

    def write(self, path: Path, records: Sequence[Record]) -> None:
        """Write a finished shard with `write_table`: at least the columns `id`, `status` and `reason`."""

    def read(self, path: Path) -> list[Record]:
        """Read a finished shard back.

        Raises:
            ValueError: When the file is none.
        """

    def close(self) -> None:
        """Give back connections and processes."""


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
    begun = _BegunShards(work, shards, progress, retry_errors, patience)
    rows = begun.waiting_rows()  # one row after the other to whichever task asks for one
    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(concurrency):
                tasks.create_task(_take(rows, begun, work, progress))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        begun.close()


async def _take(
    rows: Iterator[tuple["_BegunShard", Any]], begun: "_BegunShards", work: ShardWork, progress: RunProgress
) -> None:
    for shard, row in rows:
        record = await work.do(row, shard.number, shard.known.get(row.id), shard.keep)
        shard.keep(record)
        begun.finish_if_complete(shard)
        progress.finished(record["status"], record["reason"])


class _BegunShards:
    """The shards that are being worked on, each begun when its first row is asked for."""

    def __init__(
        self, work: ShardWork, shards: Iterable[int], progress: RunProgress, retry_errors: bool, patience: float
    ) -> None:
        self._work = work
        self._shards = shards
        self._progress = progress
        self._retry_errors = retry_errors
        self._patience = patience
        self._begun: set[_BegunShard] = set()

    def waiting_rows(self) -> Iterator[tuple["_BegunShard", Any]]:
        """Every row of which something is left to do, with its shard."""
        for number in self._shards:
            if is_settled(self._work.folder, number, self._retry_errors):
                self._progress.found(count_statuses(shard_path(self._work.folder, number)))
                continue
            shard = _BegunShard(self._work, number, self._retry_errors, self._patience)
            self._begun.add(shard)
            self._progress.found(shard.done)
            while shard.waiting:
                yield shard, shard.waiting.popleft()
            self.finish_if_complete(shard)

    def finish_if_complete(self, shard: "_BegunShard") -> None:
        """Finish a shard of which nothing is left, once."""
        if shard in self._begun and shard.is_complete:
            shard.finish()
            self._begun.remove(shard)

    def close(self) -> None:
        """Leave what is unfinished to another time."""
        for shard in self._begun:
            shard.close()


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
        self._work.write(self._final, [self.known[name] for name in self._order])
        self._journal.path.unlink()
        self.close()

    def close(self) -> None:
        """Leave the shard to another process; what is unfinished goes on another time."""
        self._journal.close()

    def _status(self, name: str) -> str:
        return str(self.known[name]["status"]) if name in self.known else "open"

    def _kept(self) -> dict[str, Record]:
        finished = self._work.read(self._final) if self._final.exists() else []
        return {record["id"]: record for record in [*finished, *read_rows(self._journal.path, _record)]}


def _record(values: Record) -> Record:
    if not {"id", "status", "reason"} <= values.keys():
        raise ValueError(f"not a row: id, status and reason are expected, not {sorted(values)}")
    return values
