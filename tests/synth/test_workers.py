import asyncio
import os
import signal
from functools import partial

import pytest

from fusionvl.synth.workers import WorkError, Workers


def build(name, device):
    """Answers numbers with where they were computed and how many came at once; knows no negative ones."""

    def compute(numbers):
        if any(number < 0 for number in numbers):
            raise ValueError(f"{name} knows no negative numbers")
        if 13 in numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        return [(number * 2, device, len(numbers)) for number in numbers]

    return compute


def build_nothing(device):
    raise OSError("no such model")


def answers(workers, *numbers):
    async def run():
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


def test_a_bad_request_does_not_spoil_its_batch():
    good, bad, other = answers(Workers(partial(build, "w"), ["cpu"], batch_size=3), 1, -1, 2)
    assert (good[0], other[0]) == (2, 4)
    assert isinstance(bad, WorkError)
    assert str(bad) == "ValueError: w knows no negative numbers"


def test_a_worker_that_is_killed_is_told():
    (found,) = answers(Workers(partial(build, "w"), ["cpu"], batch_size=1), 13)
    assert isinstance(found, ValueError)
    assert "worker process ended" in str(found)


def test_a_worker_that_cannot_start_says_why():
    (found,) = answers(Workers(build_nothing, ["cpu"], batch_size=1), 1)
    assert isinstance(found, ValueError)
    assert str(found) == "OSError: no such model"


@pytest.mark.parametrize("count", [0, 1])
def test_closing_ends_the_processes(count):
    workers = Workers(partial(build, "w"), ["cpu"], batch_size=1)
    answers(workers, *range(count))
    assert all(not process._processes for process in workers._all)
