"""What millions of rows cost: time a row, memory a process, and whether a run that is killed loses or repeats any.

    python benchmarks/synthesis.py --rows 10000 100000 --kills 15
    python benchmarks/synthesis.py --rows 10000 --planned 2000000      # a share of a run of two million

Rows are scenes with exact descriptions and questions, without pictures: what is left is the engine itself. Each run is
a process of its own, killed (SIGKILL) at random moments and started again; at the end every planned row must be there
once. Prints a line of JSON for each number of rows.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import psutil

from fusionvl.synth.kinds import KINDS
from fusionvl.synth.pictures import SceneStep
from fusionvl.synth.plan import Plan
from fusionvl.synth.run import RowWork
from fusionvl.synth.shard_files import SHARD_FOLDER, finished_shards, read_table
from fusionvl.synth.shards import ShardJob, Sharing, Spend, complete

_SHARD = 1000
_SECONDS_BETWEEN_LOOKS = 0.2
_TENTHS = 10


def plan_of(rows: int) -> Plan:
    """So many rows, of the paper's kinds in equal parts."""
    names = [name for name, kind in KINDS.items() if kind.asked]
    counts = {name: rows // len(names) + (number < rows % len(names)) for number, name in enumerate(names)}
    return Plan("scenes", "train", 0, {name: count for name, count in counts.items() if count}, _SHARD)


def make_work(plan: Plan, folder: Path, spend: Spend) -> RowWork:
    """Scenes without pictures."""
    return RowWork(plan, [SceneStep(folder, with_turns=True, settings=None)], folder)


def sizes_of(plan: Plan, rows: int) -> dict[int, int]:
    """The shards that are made of a plan, and their rows: so many that they hold about so many rows."""
    return {shard: plan.rows_in(shard) for shard in range(0, plan.shards, len(plan) // rows)}


def make_rows(rows: int, planned: int, folder: Path) -> None:
    """The run itself, which the benchmark starts as a process."""
    plan = plan_of(planned)
    job = ShardJob(partial(make_work, plan, folder), folder / SHARD_FOLDER, sizes_of(plan, rows))
    complete(job, Sharing(shown=False))


def measured(rows: int, planned: int, kills: int, folder: Path) -> dict[str, object]:
    """Runs it, killed so many times, and looks at what is there at the end."""
    command = [sys.executable, __file__, "--make", str(folder), "--rows", str(rows), "--planned", str(planned)]
    draw, began = random.Random(), time.monotonic()
    peak, spent_before, spent = 0, 0.0, 0.0
    spent_at: dict[int, float] = {}
    for number in range(kills + 1):
        is_last = number == kills
        goal = draw.uniform(0, rows / (kills + 1)) / _SHARD + _finished(folder)
        with psutil.Popen(command) as process:
            while process.poll() is None:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                memory, seconds = _used(process)
                peak, spent = max(peak, memory), max(spent, spent_before + seconds)
                spent_at.setdefault(_finished(folder), spent)
                if not is_last and _finished(folder) >= goal:
                    time.sleep(draw.uniform(0, _SECONDS_BETWEEN_LOOKS))
                    process.send_signal(signal.SIGKILL)
                    break
        spent_before = spent
        if is_last and process.returncode:
            raise SystemExit(f"the run ended with {process.returncode}")
    return {
        "rows": rows,
        "planned": planned,
        "kills": kills,
        **_counts(rows, planned, folder),
        "seconds": round(time.monotonic() - began, 1),
        "cpu_milliseconds_a_row": round(1000 * spent / rows, 3),
        "cpu_milliseconds_a_row_by_tenths": _by_tenths(spent_at),
        "peak_memory_of_a_process_MB": round(peak / 1e6),
    }


def _finished(folder: Path) -> int:
    return len(finished_shards(folder / SHARD_FOLDER))


def _used(process: psutil.Popen) -> tuple[int, float]:
    """Bytes of the largest process, and seconds that all of them computed."""
    memory, seconds = 0, 0.0
    try:
        for each in (process, *process.children(recursive=True)):
            times = each.cpu_times()
            memory, seconds = max(memory, each.memory_info().rss), seconds + times.user + times.system
    except psutil.NoSuchProcess:
        return memory, 0.0
    return memory, seconds


def _counts(rows: int, planned: int, folder: Path) -> dict[str, int]:
    found: set[str] = set()
    repeated = 0
    for path in finished_shards(folder / SHARD_FOLDER):
        ids = read_table(path, ["id"])["id"].to_pylist()
        repeated += len(ids) - len(set(ids) - found)
        found.update(ids)
    plan = plan_of(planned)
    wanted = {row.id for shard in sizes_of(plan, rows) for row in plan.rows(shard)}
    return {"lost": len(wanted - found), "repeated": repeated, "strange": len(found - wanted)}


def _by_tenths(spent_at: dict[int, float]) -> list[float]:
    """Time a row in each tenth of the run, starts of processes included."""
    shards = sorted(spent_at)
    marks = [shards[round(tenth * (len(shards) - 1) / _TENTHS)] for tenth in range(_TENTHS + 1)]
    spans = [(a, b) for a, b in pairwise(marks) if b > a]
    return [round((spent_at[b] - spent_at[a]) / (b - a) / _SHARD * 1000, 3) for a, b in spans]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--planned", type=int, help="of a run of so many rows, of which --rows are made")
    parser.add_argument("--kills", type=int, default=0, help="how often each run is killed")
    parser.add_argument("--output", type=Path, help="keep the folders here")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.make is not None:
        make_rows(options.rows[0], options.planned, options.make)
        return
    for rows in options.rows:
        folder = (options.output or Path(tempfile.mkdtemp())) / str(rows)
        print(json.dumps(measured(rows, options.planned or rows, options.kills, folder)), flush=True)
        if options.output is None:
            shutil.rmtree(folder.parent)


if __name__ == "__main__":
    main()
