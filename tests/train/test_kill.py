"""kill -9: whatever a run was doing, the same command goes on to the same log and weights; nothing is left over."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from fusionvl.run_folder import UNFINISHED
from fusionvl.train import run

# The command, dead at a certain one of its file operations: opening, flushing, renaming, removing.
COMMAND = """
import os, signal, sys
from fusionvl.cli import main
left = operations
def hook(event, arguments):
    global left
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir") and folder in str(arguments[0]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
sys.exit(main(["train", recipe, "--output", folder]))
"""


@pytest.fixture
def start(monkeypatch):
    """Run the command in a process of its own, dead at its n-th file operation; returns how it ended."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the server would import what is installed
    context = multiprocessing.get_context("forkserver")  # imports once for all processes
    context.set_forkserver_preload(["fusionvl.train.run"])

    def run_command(recipe, folder, operations):
        names = {"recipe": str(recipe), "folder": str(folder), "operations": operations}
        process = context.Process(target=exec, args=(COMMAND, names))
        process.start()
        process.join()
        return process.exitcode

    return run_command


def test_killed_in_the_middle_of_file_operations(tmp_path, recipe, start, assert_same):
    run.train(recipe, tmp_path / "whole")
    seed = random.SystemRandom().randrange(2**32)
    moments = [random.Random(seed).randrange(1, 120) for _ in range(5)]
    print(f"seed {seed}: killed at file operations {moments}")
    ends = [start(tmp_path / "tiny.yaml", tmp_path / "killed", moment) for moment in moments]
    assert set(ends) <= {-signal.SIGKILL, 0}
    assert -signal.SIGKILL in ends
    assert start(tmp_path / "tiny.yaml", tmp_path / "killed", 0) == 0
    assert_same(tmp_path / "whole", tmp_path / "killed")
    assert list((tmp_path / "killed").rglob(f"*{UNFINISHED}*")) == []


def members(session: int) -> list[str]:
    """Command lines of the living processes of a session."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, own = (process / "stat").read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(own) == session and state != "Z":
            found.append((process / "cmdline").read_text())
    return found


@pytest.mark.slow
def test_no_process_outlives_a_killed_run(tmp_path, recipe_text):
    endless = yaml.safe_load(recipe_text) | {"data_workers": 1, "save_every": 10**6}
    endless["stages"][0]["max_steps"] = 10**6
    (tmp_path / "endless.yaml").write_text(yaml.safe_dump(endless))
    command = [sys.executable, "-m", "fusionvl", "train", str(tmp_path / "endless.yaml"), "--output", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, start_new_session=True, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            log = tmp_path / "metrics.jsonl"
            while process.poll() is None and not (log.exists() and log.stat().st_size):
                time.sleep(0.05)
            assert process.poll() is None
            assert len(members(process.pid)) > 1, "a worker prepares batches"
        finally:
            process.kill()
    deadline = time.monotonic() + 60
    while members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert members(process.pid) == []
