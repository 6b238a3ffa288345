"""Carries rows through their steps: so many at once, each step written down as soon as it is done.

Killed at any moment, a run loses at most what was in flight, and goes on from there. Knows no backend but its steps.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fusionvl.synth.plan import Plan
from fusionvl.synth.row_files import count_statuses, shard_path
from fusionvl.synth.rows import Row
from fusionvl.synth.shard import OpenShard, is_settled
from fusionvl.synth.steps import Step
from fusionvl.synth.supervision import Watch


class Runner:
    """Makes the rows of some shards.

    Args:
        folder: The run folder.
        plan: The rows of the run.
        steps: What every row goes through, in order.
        watch: Is told of everything, and may stop the run.
        concurrency: How many rows are worked on at once.
        retry_errors: Whether rows that are errors are tried again.
        patience: Seconds to wait for a shard that another process makes: it may have died just now on a machine whose
            locks are given back late.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        steps: Sequence[Step],
        *,
        watch: Watch,
        concurrency: int = 64,
        retry_errors: bool = False,
        patience: float = 0.0,
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._steps = steps
        self._watch = watch
        self._concurrency = concurrency
        self._retry_errors = retry_errors
        self._patience = patience
        self._shards: set[OpenShard] = set()

    async def run(self, shards: Sequence[int]) -> None:
        """Make all rows of some shards that are not there yet.

        Raises:
            ValueError: When settings are wrong, another process makes one of the shards, the watch stops it, or the
                disk is full. What was made is kept, and rows in flight stay open.
        """
        rows = self._open_rows(shards)
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(self._concurrency):
                    tasks.create_task(self._work(rows))
        except ExceptionGroup as group:
            raise _stop(group.exceptions[0], self._folder) from group.exceptions[0]
        finally:
            for shard in self._shards:
                shard.close()
            self._shards.clear()

    def _open_rows(self, shards: Sequence[int]) -> Iterator[tuple[OpenShard, Row]]:
        """Every unfinished row; a shard is opened when its first row is asked for."""
        for number in shards:
            if is_settled(self._folder, number, self._retry_errors):
                self._watch.found(number, count_statuses(shard_path(self._folder, number)))
                continue
            shard = OpenShard(self._folder, self._plan, number, self._retry_errors, self._patience)
            self._shards.add(shard)
            self._watch.found(number, shard.finished)
            if not shard.open_rows:
                self._finish(shard)
            while shard.open_rows:
                yield shard, shard.open_rows.popleft()

    async def _work(self, rows: Iterator[tuple[OpenShard, Row]]) -> None:
        """One of the workers: all take from the same rows."""
        for shard, row in rows:
            await self._make(shard, row)

    async def _make(self, shard: OpenShard, row: Row) -> None:
        while row.status == "open":
            step = self._next_step(row)
            if step is not None:
                before, row = row, await step.run(row, shard.number)
                self._watch.spent(before, row, step.price)
            if row.status == "open" and self._next_step(row) is None:
                row = replace(row, status="ok", reason="")
            shard.keep(row)
        if shard.is_complete:
            self._finish(shard)
        self._watch.finished(shard.number, row)

    def _next_step(self, row: Row) -> Step | None:
        return next((step for step in self._steps if not step.is_done(row)), None)

    def _finish(self, shard: OpenShard) -> None:
        shard.finish()
        shard.close()
        self._shards.remove(shard)


def _stop(error: Exception, folder: Path) -> Exception:
    """What a user is told; an error of ours stays as it is."""
    if isinstance(error, OSError):
        return ValueError(f"Cannot write into {folder}: {error}. Nothing is lost: free the disk and run again")
    return error
