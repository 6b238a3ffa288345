import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from small_work import SmallWork

from fusionvl.run_folder import RowFile
from fusionvl.synth.progress import Fuse, FuseSettings, RunProgress, Tally
from fusionvl.synth.shard_files import finished_shards, read_table, shard_path
from fusionvl.synth.shards import ShardJob, Sharing, complete

SIZES = {0: 5, 1: 4, 2: 4, 3: 4, 4: 4}
NAMES = [f"{shard}-{number}" for shard, size in SIZES.items() for number in range(size)]
SRC = str(Path(__file__).parents[2] / "src")
SMALL_WORK = Path(__file__).with_name("small_work.py")


def do(work, *, fuse=None, concurrency=4, share=(0, 1), retry_errors=False, sizes=SIZES):
    job = ShardJob(lambda spend: work, work.folder, sizes, concurrency, fuse)
    return complete(job, Sharing(share, retry_errors=retry_errors, shown=False))


def work_in(folder, **choices):
    return SmallWork(folder, SIZES, **choices)


def records(folder):
    return [record for path in finished_shards(folder) for record in read_table(path).to_pylist()]


def test_every_row_is_done_once_and_stands_in_its_place(tmp_path):
    work = work_in(tmp_path)
    assert do(work).rows == {"ok": 21}
    assert [record["id"] for record in records(tmp_path)] == NAMES
    assert all(record["first"] == f"first of {record['id']}" for record in records(tmp_path))
    assert set(work.steps.values()) == {1}
    assert work.closed
    assert Counter(path.suffix for path in tmp_path.iterdir()) == {".lock": 5, ".parquet": 5}


def test_concurrency_is_used_and_bounded(tmp_path):
    work = work_in(tmp_path)
    do(work, concurrency=3)
    assert work.most_at_once == 3


def test_the_next_shard_is_begun_before_the_last_rows_of_one_are_done(tmp_path):
    work = work_in(tmp_path, pause=0.01)
    do(work, concurrency=21)
    assert work.most_at_once == 21


def test_files_do_not_depend_on_concurrency_or_shares(tmp_path):
    do(work_in(tmp_path / "one"), concurrency=1)
    for share in (1, 0):
        do(work_in(tmp_path / "two"), concurrency=7, share=(share, 2))
    for shard in SIZES:
        one, two = (shard_path(tmp_path / name, shard).read_bytes() for name in ("one", "two"))
        assert one == two


def test_a_finished_work_is_not_done_again(tmp_path):
    do(work_in(tmp_path))
    again = work_in(tmp_path)
    assert do(again).rows == {"ok": 21}
    assert not again.steps


def test_errors_are_tried_again_when_they_shall_be_and_keep_what_earlier_steps_brought(tmp_path):
    work = work_in(tmp_path, failing=["1-2"], rejecting=["3-0"])
    assert do(work).rows == {"ok": 19, "error": 1, "rejected": 1}
    assert {record["id"]: record["reason"] for record in records(tmp_path) if record["reason"]} == {
        "1-2": "no answer",
        "3-0": "no good",
    }
    again = work_in(tmp_path)
    assert do(again).rows["error"] == 1
    assert not again.steps
    assert do(again, retry_errors=True).rows == {"ok": 20, "rejected": 1}
    assert again.steps == {("1-2", "second"): 1}
    assert [record["id"] for record in records(tmp_path)] == NAMES


def test_errors_that_fail_again_do_not_keep_others_from_being_done(tmp_path):
    do(work_in(tmp_path, failing=["1-2", "2-0"]))
    assert do(work_in(tmp_path, failing=["1-2"]), retry_errors=True).rows == {"ok": 20, "error": 1}
    assert do(work_in(tmp_path), retry_errors=True).rows == {"ok": 21}


def test_a_fault_of_all_rows_stops_the_work_and_leaves_rows_open(tmp_path):
    work = work_in(tmp_path, stopping=["1-2"])
    with pytest.raises(ValueError, match="wrong key"):
        do(work)
    assert work.closed
    again = work_in(tmp_path)
    assert do(again).rows == {"ok": 21}
    assert again.steps["1-2", "first"] == 1
    assert sum(again.steps.values()) <= 2 * (21 - 7 + 4)  # the seven before it were kept, but for those in flight


def test_a_file_that_vanished_is_not_called_a_full_disk(tmp_path):
    class Forgetful(SmallWork):
        async def do(self, row, shard, known, keep):
            (tmp_path / "captions.txt").read_text()

    with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*captions.txt"):
        do(Forgetful(tmp_path, SIZES))


def test_the_fuse_stops_a_work_that_goes_wrong(tmp_path):
    failing = work_in(tmp_path, failing=NAMES)
    with pytest.raises(ValueError, match=r"6 of the last 6 rows are error.*no answer.*--retry-errors"):
        do(failing, fuse=FuseSettings(window=6, max_errors=0.5))
    assert sum(failing.steps.values()) <= 2 * (6 + 4)
    with pytest.raises(ValueError, match="of the last 21 rows are error"):
        do(work_in(tmp_path / "small", failing=NAMES), fuse=FuseSettings())
    assert do(work_in(tmp_path), retry_errors=True).rows == {"ok": 21}


@pytest.mark.parametrize(("rows", "window"), [(3, 20), (20, 20), (30, 30), (1000, 100)])
def test_how_many_rows_the_fuse_looks_back_on(rows, window):
    fuse = Fuse(FuseSettings(), rows)
    for _ in range(window - 1):
        fuse.note("error", "no answer")
    with pytest.raises(ValueError, match=f"{window} of the last {window} rows"):
        fuse.note("error", "no answer")


def test_the_fuse_tells_rejections_from_errors(tmp_path):
    settings = FuseSettings(window=6, max_errors=0.0, max_rejected=1.0)
    assert do(work_in(tmp_path, rejecting=NAMES), fuse=settings).rows == {"rejected": 21}
    with pytest.raises(ValueError, match="are rejected"):
        do(work_in(tmp_path / "b", rejecting=NAMES), fuse=FuseSettings(window=6, max_rejected=0.9))


def test_what_was_done_elsewhere_is_counted():
    progress = RunProgress(10, shown=False)
    progress.found({"ok": 2})
    progress.spent(10, 0.5)
    progress.finished("error", "no answer")
    progress.add(Tally(Counter(ok=3, rejected=1), tokens=1_000_000, cost=2.0))
    assert str(progress.tally) == "5 ok, 1 errors, 1 rejected, 1,000,010 tokens, $2.50"


def test_two_processes_on_one_shard(tmp_path):
    with RowFile(shard_path(tmp_path, 2, ".jsonl")):
        with pytest.raises(ValueError, match=r"Another process writes .*part-00002.jsonl.*--shard 0/2"):
            do(work_in(tmp_path))
        do(work_in(tmp_path), sizes={3: 4, 4: 4})  # other shards are free
    assert do(work_in(tmp_path)).rows == {"ok": 21}


def test_a_shard_whose_end_was_cut_short_is_finished_again(tmp_path):
    """The process ended after the finished file was written and before the journal was removed."""
    do(work_in(tmp_path))
    with RowFile(journal := shard_path(tmp_path, 1, ".jsonl")) as file:
        file.append(*read_table(shard_path(tmp_path, 1)).to_pylist()[:2])
    before = shard_path(tmp_path, 1).read_bytes()
    again = work_in(tmp_path)
    assert do(again).rows == {"ok": 21}
    assert not again.steps
    assert not journal.exists()
    assert shard_path(tmp_path, 1).read_bytes() == before


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"id": "9-9", "status": "ok", "reason": ""}\n', "1 rows that are not in the plan"),
        ('{"id": "0-0", "status": "ok"}\n', r"part-00000.jsonl, line 1: not a row: .*Remove that line"),
        ("{\n", r"part-00000.jsonl, line 1: .*Remove that line"),
    ],
)
def test_journals_that_something_else_wrote_into(tmp_path, lines, message):
    shard_path(tmp_path, 0, ".jsonl").write_text(lines)
    with pytest.raises(ValueError, match=message):
        do(work_in(tmp_path))


def test_a_file_that_is_no_finished_shard(tmp_path):
    shard_path(tmp_path, 0).write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="is no finished shard"):
        do(work_in(tmp_path))


def test_killed_at_random_moments_nothing_is_lost_or_done_twice(tmp_path):
    """A started process is killed, fifteen times, after some more of its steps have begun."""
    draw, kills, log = random.Random(), 0, tmp_path / "steps.log"
    while True:
        process = subprocess.Popen(
            [sys.executable, SMALL_WORK, tmp_path], stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": SRC}
        )
        if kills < 15:
            goal = lines(log) + draw.randrange(1, 15)
            while lines(log) < goal and process.poll() is None:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        if process.returncode != -signal.SIGKILL:
            break
        kills += 1
    assert process.returncode == 0, errors.decode()
    assert kills == 15
    assert sorted(record["id"] for record in records(tmp_path)) == sorted(
        f"{shard}-{number}" for shard in range(3) for number in range(40)
    )
    assert all(record["status"] == "ok" for record in records(tmp_path))
    # 120 rows of two steps; every kill repeats at most the eight that were in flight.
    assert 240 <= lines(log) <= 240 + 8 * kills


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_full_disk_stops_the_work_and_loses_nothing(tmp_path):
    """A limit on file sizes fails a write half way, as a full disk does."""
    environment = os.environ | {"PYTHONPATH": SRC}
    command = [sys.executable, SMALL_WORK, tmp_path]
    stopped = subprocess.run([*command, "1500"], capture_output=True, text=True, env=environment)
    assert stopped.returncode == 1
    assert "part-00000.jsonl could not be written: File too large" in stopped.stderr
    assert "Make room and start the same command again" in stopped.stderr
    journal = shard_path(tmp_path, 0, ".jsonl").read_text()
    assert journal.count("\n") > 3
    assert journal.endswith("\n")
    subprocess.run(command, check=True, env=environment)
    assert len({record["id"] for record in records(tmp_path)}) == 120
    assert lines(tmp_path / "steps.log") <= 240 + 8
