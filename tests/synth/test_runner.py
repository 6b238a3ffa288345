import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from fusionvl.synth.fuse import Fuse, FuseSettings
from fusionvl.synth.plan import Plan
from fusionvl.synth.progress import Price, Progress, Tally
from fusionvl.synth.row_files import finished_rows, read_rows, shard_path
from fusionvl.synth.runner import Runner
from fusionvl.synth.shard import OpenShard
from fusionvl.synth.supervision import Supervisor

PLAN = Plan("test", "train", 0, {"SynthColor": 13, "MultiChoice": 8}, shard_size=5)
SRC = str(Path(__file__).parents[2] / "src")
RUN_TO_KILL = Path(__file__).with_name("run_to_kill.py")


class Describe:
    """A step that describes, and fails where it is told to; says how many were at it at once."""

    def __init__(self, failing=(), rejecting=(), stopping=()):
        self.price = Price(input=1.0, output=2.0)
        self.failing, self.rejecting, self.stopping = set(failing), set(rejecting), set(stopping)
        self.calls = Counter()
        self.at_once = self.most_at_once = 0

    def is_done(self, row):
        return bool(row.description)

    async def run(self, row, shard):
        self.calls[row.id] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if row.id in self.stopping:
            raise ValueError("wrong key")
        row = replace(row, attempts=row.attempts + 1, input_tokens=row.input_tokens + 1_000_000)
        if row.id in self.failing:
            return row.failed("no answer")
        return row.rejected("no good") if row.id in self.rejecting else replace(row, description=f"of {row.id}")

    def close(self):
        pass


class Finish(Describe):
    """A second step."""

    def is_done(self, row):
        return bool(row.finish_reason)

    async def run(self, row, shard):
        row = await super().run(row, shard)
        return replace(row, finish_reason="stop") if row.status == "open" else row


def run(folder, *steps, plan=PLAN, shards=None, fuse=None, concurrency=4, retry_errors=False):
    progress = Progress(len(plan), Tally(), shown=False)
    watch = Supervisor(progress, Fuse(fuse or FuseSettings(window=1000), len(plan)))
    runner = Runner(folder, plan, steps, watch=watch, concurrency=concurrency, retry_errors=retry_errors)
    asyncio.run(runner.run(range(plan.shards) if shards is None else shards))
    return progress.tally


def planned(plan=PLAN):
    return [row for shard in range(plan.shards) for row in plan.rows(shard)]


def test_every_row_is_made_once_and_stands_in_its_place(tmp_path):
    step = Describe()
    tally = run(tmp_path, step)
    rows = list(finished_rows(tmp_path))
    assert [row.id for row in rows] == [row.id for row in planned()]
    assert all(row.status == "ok" and row.description == f"of {row.id}" for row in rows)
    assert tally.rows == {"ok": 21}
    assert set(step.calls.values()) == {1}
    assert sorted(path.suffix for path in (tmp_path / "shards").iterdir()) == [".lock"] * 5 + [".parquet"] * 5


def test_concurrency_is_used_and_bounded(tmp_path):
    step = Describe()
    run(tmp_path, step, concurrency=3)
    assert step.most_at_once == 3


def test_files_do_not_depend_on_concurrency_or_shares(tmp_path):
    run(tmp_path / "one", Describe(), concurrency=1)
    for share in (1, 0):
        run(tmp_path / "two", Describe(), concurrency=7, shards=range(share, PLAN.shards, 2))
    for shard in range(PLAN.shards):
        one, two = (shard_path(tmp_path / name, shard).read_bytes() for name in ("one", "two"))
        assert one == two


def test_a_finished_run_is_not_run_again(tmp_path):
    run(tmp_path, Describe())
    step = Describe()
    assert run(tmp_path, step).rows == {"ok": 21}
    assert not step.calls


def test_errors_and_rejections_are_rows_with_reasons(tmp_path):
    first, second, *_ = planned()
    tally = run(tmp_path, Describe(failing=[first.id], rejecting=[second.id]))
    assert tally.rows == {"ok": 19, "error": 1, "rejected": 1}
    rows = {row.id: row for row in finished_rows(tmp_path)}
    assert (rows[first.id].status, rows[first.id].reason) == ("error", "no answer")
    assert (rows[second.id].status, rows[second.id].reason) == ("rejected", "no good")


def test_retry_errors_tries_only_errors_again_and_keeps_what_earlier_steps_brought(tmp_path):
    first, second, *_ = planned()
    describe, finish = Describe(rejecting=[second.id]), Finish(failing=[first.id])
    run(tmp_path, describe, finish)
    assert run(tmp_path, Describe(), Finish()).rows["error"] == 1  # not without being asked to
    again, retried = Describe(), Finish()
    assert run(tmp_path, again, retried, retry_errors=True).rows == {"ok": 20, "rejected": 1}
    assert not again.calls
    assert retried.calls == {first.id: 1}
    row = next(row for row in finished_rows(tmp_path) if row.id == first.id)
    assert (row.status, row.reason, row.attempts, row.description) == ("ok", "", 3, f"of {first.id}")


def test_a_fault_of_all_rows_stops_the_run_and_leaves_rows_open(tmp_path):
    bad = planned()[7].id
    with pytest.raises(ValueError, match="wrong key"):
        run(tmp_path, Describe(stopping=[bad]))
    step = Describe()
    assert run(tmp_path, step).rows == {"ok": 21}
    assert step.calls[bad] == 1
    assert sum(step.calls.values()) <= 21 - 7 + 4  # the seven before it were kept, but for those in flight


def test_the_fuse_stops_a_run_that_goes_wrong(tmp_path):
    failing = Describe(failing=[row.id for row in planned()])
    with pytest.raises(ValueError, match=r"6 of the last 6 rows are error.*no answer.*--retry-errors"):
        run(tmp_path, failing, fuse=FuseSettings(window=6, max_errors=0.5))
    assert sum(failing.calls.values()) <= 6 + 4
    assert run(tmp_path, Describe(), retry_errors=True).rows == {"ok": 21}


def test_a_run_of_fewer_rows_than_the_window_has_a_fuse(tmp_path):
    failing = Describe(failing=[row.id for row in planned()])
    with pytest.raises(ValueError, match="of the last 21 rows are error"):
        run(tmp_path, failing, fuse=FuseSettings())


@pytest.mark.parametrize(("rows", "window"), [(3, 20), (20, 20), (30, 30), (1000, 100)])
def test_how_many_rows_the_fuse_looks_back_on(rows, window):
    fuse = Fuse(FuseSettings(), rows)
    for _ in range(window - 1):
        fuse.note("error", "no answer")
    with pytest.raises(ValueError, match=f"{window} of the last {window} rows"):
        fuse.note("error", "no answer")


def test_the_fuse_tells_rejections_from_errors(tmp_path):
    rejecting = [row.id for row in planned()]
    settings = FuseSettings(window=6, max_errors=0.0, max_rejected=1.0)
    assert run(tmp_path, Describe(rejecting=rejecting), fuse=settings).rows == {"rejected": 21}
    with pytest.raises(ValueError, match="are rejected"):
        run(tmp_path / "b", Describe(rejecting=rejecting), fuse=FuseSettings(window=6, max_rejected=0.9))


def test_tokens_and_cost_are_counted_at_each_steps_price(tmp_path):
    tally = run(tmp_path, Describe(failing=[planned()[0].id]))
    assert tally.tokens == 21_000_000
    assert tally.cost == pytest.approx(21.0)
    assert str(tally) == "20 ok, 1 errors, 21,000,000 tokens, $21.00"


def test_two_runners_on_one_shard(tmp_path):
    shard = OpenShard(tmp_path, PLAN, 2)
    try:
        with pytest.raises(ValueError, match=r"Shard 2 of .* is being made by another process.*--shard"):
            run(tmp_path, Describe())
        run(tmp_path, Describe(), shards=[3, 4])  # other shards are free
    finally:
        shard.close()
    assert run(tmp_path, Describe()).rows == {"ok": 21}


def test_a_shard_whose_end_was_cut_short_is_finished_again(tmp_path):
    """The process ended after the finished file was written and before the journal was removed."""
    run(tmp_path, Describe())
    journal = shard_path(tmp_path, 1, ".jsonl")
    journal.write_text("".join(f"{row.to_json()}\n" for row in read_rows(shard_path(tmp_path, 1))))
    before = shard_path(tmp_path, 1).read_bytes()
    step = Describe()
    assert run(tmp_path, step).rows == {"ok": 21}
    assert not step.calls
    assert not journal.exists()
    assert shard_path(tmp_path, 1).read_bytes() == before


def test_a_journal_of_another_plan_is_told(tmp_path):
    shard = OpenShard(tmp_path, PLAN, 0)
    shard.keep(replace(planned()[0], id="f" * 32))
    shard.close()
    with pytest.raises(ValueError, match="1 rows that are not in the plan"):
        run(tmp_path, Describe())


def test_killed_at_random_moments_nothing_is_lost_or_made_twice(tmp_path):
    """A started process is killed, five times, after some more of its requests have begun."""
    draw, kills, log = random.Random(), 0, tmp_path / "requests.log"
    while True:
        process = subprocess.Popen(
            [sys.executable, RUN_TO_KILL, tmp_path], stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": SRC}
        )
        if kills < 5:
            goal = lines(log) + draw.randrange(1, 45)
            while lines(log) < goal and process.poll() is None:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        if process.returncode != -signal.SIGKILL:
            break
        kills += 1
    assert process.returncode == 0, errors.decode()
    assert kills == 5
    rows = list(finished_rows(tmp_path))
    assert len(rows) == len({row.id for row in rows}) == 120
    assert all(row.status == "ok" and row.description == f"of {row.id}" for row in rows)
    # 120 rows of two steps; every kill repeats at most the eight requests that were in flight.
    assert 240 <= lines(log) <= 240 + 8 * kills


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path):
    """A limit on file sizes fails a write half way, as a full disk does."""
    environment = os.environ | {"PYTHONPATH": SRC}
    command = [sys.executable, RUN_TO_KILL, tmp_path]
    stopped = subprocess.run([*command, "3000"], capture_output=True, text=True, env=environment)
    assert stopped.returncode == 1
    assert "Nothing is lost: free the disk and run again" in stopped.stderr
    journal = shard_path(tmp_path, 0, ".jsonl").read_text()
    assert journal.count("\n") > 3
    assert journal.endswith("\n")
    subprocess.run(command, check=True, env=environment)
    assert len({row.id for row in finished_rows(tmp_path)}) == 120
    assert lines(tmp_path / "requests.log") <= 240 + 8
