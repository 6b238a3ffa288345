import asyncio
import os
import re
import signal
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from fusionvl.synth.filters import make_filter
from fusionvl.synth.filters.filter import FilterModels
from fusionvl.synth.text_client import LocalModel, named_model
from fusionvl.synth.workers import WorkError, Workers, devices_here


def build(name, device):
    """Answers numbers with where they were computed and how many came at once; knows no negative ones."""

    def compute(numbers):
        if any(number < 0 for number in numbers):
            raise ValueError(f"{name} knows no negative numbers")
        if 0.5 in numbers:
            raise TypeError("unexpected keyword 'guidance_scale'\nand more")
        if 1.5 in numbers:
            raise MemoryError
        if 2.5 in numbers:
            return [lambda: "what no process can send"] * len(numbers)
        if 3.5 in numbers:
            return []
        if 13 in numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        return [(number * 2, device, len(numbers)) for number in numbers]

    return compute


def build_nothing(error, device):
    raise error


def answers(workers, *numbers):
    async def run():
        async with asyncio.timeout(60):
            return await asyncio.gather(*map(workers, numbers), return_exceptions=True)

    try:
        return asyncio.run(run())
    finally:
        workers.close()


def test_requests_are_spread_over_devices_in_batches():
    found = answers(Workers(partial(build, "w"), ["cpu:0", "cpu:1"], batch_size=3), *range(9))
    assert [double for double, _, _ in found] == [number * 2 for number in range(9)]
    assert {device for _, device, _ in found} == {"cpu:0", "cpu:1"}
    assert max(count for _, _, count in found) == 3


@pytest.mark.parametrize(("gpus", "devices"), [(0, ["cpu"]), (2, ["cuda:0", "cuda:1"])])
def test_a_model_runs_on_every_gpu_of_the_machine_or_else_on_its_cpu(monkeypatch, gpus, devices):
    """Whether a recipe or a command line names it."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert devices_here(LocalModel("m").devices) == devices
    assert devices_here(named_model("m", max_tokens=1).devices) == devices
    assert devices_here(["cpu", "cuda:1"]) == ["cpu", "cuda:1"]
    models = FilterModels(text="m", judge="m", similarity="m")
    for name in ("closed-book", "judge", "similarity"):
        each = make_filter(name, models)
        assert each.devices == devices
        each.close()
    with closing(Workers(partial(build, "w"), ["auto"], batch_size=1)) as workers:
        assert len(workers._all) == len(devices)


def test_a_bad_request_does_not_spoil_its_batch():
    good, bad, other = answers(Workers(partial(build, "w"), ["cpu"], batch_size=3), 1, -1, 2)
    assert (good[0], other[0]) == (2, 4)
    assert isinstance(bad, WorkError)
    assert str(bad) == "ValueError: w knows no negative numbers"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (0.5, "TypeError: unexpected keyword 'guidance_scale'"),
        (1.5, "MemoryError"),
        (2.5, "PicklingError|AttributeError: Can't"),
        (3.5, "ValueError: 0 replies to 1 requests"),
    ],
)
def test_whatever_goes_wrong_with_a_request_is_told_and_the_next_is_answered(number, reason):
    workers = Workers(partial(build, "w"), ["cpu"], batch_size=1)
    bad, good = answers(workers, number, 2)
    assert isinstance(bad, WorkError)
    assert re.match(reason, str(bad))
    assert "\n" not in str(bad)
    assert good[0] == 4


def test_a_worker_that_is_killed_is_told():
    (found,) = answers(Workers(partial(build, "w"), ["cpu"], batch_size=1), 13)
    assert isinstance(found, ValueError)
    assert "worker process ended" in str(found)


@pytest.mark.parametrize("error", [OSError("no such model"), TypeError("no such setting")])
def test_a_worker_that_cannot_start_says_why(error):
    (found,) = answers(Workers(partial(build_nothing, error), ["cpu"], batch_size=1), 1)
    assert isinstance(found, ValueError)
    assert str(found) == f"{type(error).__name__}: {error}"


def test_workers_end_with_a_process_that_is_killed():
    program = (
        "import asyncio, functools, os, test_workers as t; w = t.Workers(functools.partial(t.build, 'w'), ['cpu'], 1);"
        "asyncio.run(w(1)); print(*(pid for p in w._all for pid in p._processes), flush=True); os.kill(os.getpid(), 9)"
    )
    paths = os.pathsep.join(map(str, (Path(__file__).parents[2] / "src", Path(__file__).parent)))
    environment = os.environ | {"PYTHONPATH": paths}
    command = [sys.executable, "-c", f"if __name__ == '__main__':\n    {program}"]
    # The worker holds the pipe too: that it could be read to its end says that the worker is gone.
    killed = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout.strip().isdigit()


@pytest.mark.parametrize("count", [0, 1])
def test_closing_ends_the_processes(count):
    workers = Workers(partial(build, "w"), ["cpu"], batch_size=1)
    answers(workers, *range(count))
    assert all(not process._processes for process in workers._all)
