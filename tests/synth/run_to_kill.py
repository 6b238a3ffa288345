"""`run_to_kill.py FOLDER`: a run of 120 rows and two steps, for a test to kill; writes a line per request.

A second argument is the largest size a file may reach.
"""

import asyncio
import os
import resource
import sys
from dataclasses import replace
from pathlib import Path

from fusionvl.synth.fuse import Fuse, FuseSettings
from fusionvl.synth.plan import Plan
from fusionvl.synth.progress import Price, Progress, Tally
from fusionvl.synth.runner import Runner
from fusionvl.synth.supervision import Supervisor

PLAN = Plan("test", "train", 0, {"SynthColor": 70, "ConvLong": 50}, shard_size=40)


class Slow:
    def __init__(self, folder: Path, field: str) -> None:
        self.price = Price()
        self.field = field
        self.log = os.open(folder / "requests.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def is_done(self, row):
        return bool(getattr(row, self.field))

    async def run(self, row, shard):
        os.write(self.log, f"{row.id} {self.field}\n".encode())
        await asyncio.sleep(0.01)
        return replace(row, **{self.field: f"of {row.id}"})

    def close(self):
        pass


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    steps = [Slow(folder, "description"), Slow(folder, "finish_reason")]
    watch = Supervisor(Progress(120, Tally(), shown=False), Fuse(FuseSettings(), 120))
    runner = Runner(folder, PLAN, steps, watch=watch, concurrency=8)
    asyncio.run(runner.run(range(PLAN.shards)))
