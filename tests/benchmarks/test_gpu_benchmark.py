"""The benchmark of a GPU, dry: every part at a tiny size on the CPU, as somebody would start it."""

import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"
TINY = ("--preset", "nano", "--device", "cpu")


@pytest.fixture
def run(tmp_path):
    """Run it with this Python: what it printed, and what it wrote."""

    def start(*arguments):
        search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = os.environ | {"PATH": search, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = ["bash", str(SCRIPT), str(tmp_path / "results"), *arguments, *TINY]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert (tmp_path / "results" / "gpu.json").is_file(), done.stderr
        return done, json.loads((tmp_path / "results" / "gpu.json").read_text())

    return start


@pytest.mark.slow
def test_every_part_gives_figures(run):
    done, report = run("")
    report.pop("settings")
    assert {name: part["problem"] for name, part in report.items()} == dict.fromkeys(report)
    assert list(report) == ["question", "decode-1", "training", "decode-32", "int8", "int4"]
    figures = [value for part in report.values() for value in part["figures"].values()]
    assert all(math.isfinite(value) and value >= 0 for value in figures)
    assert done.returncode == 0
    assert done.stdout.count("\n| ") >= len(figures)


@pytest.mark.slow
def test_a_part_that_fails_is_reported_and_the_next_runs(run, tmp_path):
    """The wheel that breaks it is taken from the folder, before what is installed."""
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "bitsandbytes-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("bitsandbytes/__init__.py", "raise ImportError('made for another machine')\n")
    done, report = run(str(tmp_path / "wheels"), "--only", "int4", "int8")
    assert done.returncode == 1
    assert report["int4"] == {"figures": {}, "problem": "ImportError: made for another machine"}
    assert report["int8"]["problem"] is None
    assert "made for another machine" in done.stdout


def test_a_part_without_time_is_stopped(run):
    done, report = run("", "--only", "question", "--seconds", "0")
    assert done.returncode == 1
    assert report["question"] == {"figures": {}, "problem": "not done in its 1 s"}
