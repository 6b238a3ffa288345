"""`small_work.py FOLDER`: a work of 120 rows in two steps, for a test to kill; writes a line per step that begins.

A second argument is the largest size a file may reach.
"""

import asyncio
import os
import resource
import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fusionvl.synth.shard_files import arrow
from fusionvl.synth.shards import ShardJob, Sharing, complete


@dataclass(frozen=True)
class Numbered:
    id: str


class SmallWork:
    """Gives each row a first and a second word; fails, rejects or stops where it is told to."""

    schema = arrow.schema(dict.fromkeys(("id", "status", "first", "reason"), arrow.string()))

    def __init__(self, folder, sizes, failing=(), rejecting=(), stopping=(), log=None, pause=0.0):
        self.folder = Path(folder)
        self.sizes = sizes
        self.failing, self.rejecting, self.stopping = set(failing), set(rejecting), set(stopping)
        self.steps = Counter()
        self.at_once = self.most_at_once = 0
        self.log = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.pause = pause
        self.closed = False

    def rows(self, shard):
        return (Numbered(f"{shard}-{number}") for number in range(self.sizes[shard]))

    async def do(self, row, shard, known, keep):
        record = {"id": row.id, "status": "open", "first": None, **(known or {}), "reason": ""}
        if record["first"] is None:
            await self.step(row.id, "first")
            record |= {"first": f"first of {row.id}", "status": "open"}
            keep(dict(record))
        await self.step(row.id, "second")
        if row.id in self.failing:
            return record | {"status": "error", "reason": "no answer"}
        if row.id in self.rejecting:
            return record | {"status": "rejected", "reason": "no good"}
        return record | {"status": "ok"}

    async def step(self, name, which):
        if self.log is not None:
            os.write(self.log, f"{name} {which}\n".encode())
        self.steps[name, which] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.pause)
        self.at_once -= 1
        if name in self.stopping:
            raise ValueError("wrong key")

    def close(self):
        self.closed = True


def make_logged(folder, spend):
    with (Path(folder) / "made.log").open("a") as log:
        log.write(f"{os.getpid()}\n")
    return SmallWork(folder, dict.fromkeys(range(3), 40), log=Path(folder) / "steps.log", pause=0.005)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    folder = Path(sys.argv[1])
    job = ShardJob(partial(make_logged, folder), folder, dict.fromkeys(range(3), 40), concurrency=8)
    complete(job, Sharing(shown=False))
