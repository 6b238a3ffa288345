"""One tiny run of a speed benchmark, as somebody would start it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
TINY = (
    "--preset", "nano", "--vision-width", "32", "--vision-mlp", "64", "--decoder-width", "32", "--decoder-mlp", "64",
    "--decoder-layers", "3", "--interaction-layers", "2", "--num-latents", "4", "--device", "cpu", "--threads", "1",
    "--repeats", "1",
)  # fmt: skip


@pytest.fixture(scope="session")
def run_script():
    """Run a benchmark with arguments."""

    def run(name, *arguments):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(
            [sys.executable, str(SCRIPTS / name), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )

    return run


@pytest.fixture(scope="session")
def run_tiny(run_script, tmp_path_factory):
    """Run a benchmark on a tiny model: what it printed, and the results in its file."""

    def run(name, *arguments):
        file = tmp_path_factory.mktemp("benchmark") / "results.json"
        result = run_script(name, *TINY, *arguments, "--json", str(file))
        assert result.returncode == 0, result.stderr
        return result, json.loads(file.read_text())

    return run


@pytest.fixture(scope="session")
def numbers():
    """Every number in a report."""

    def collect(value):
        if isinstance(value, dict):
            return [number for inner in value.values() for number in collect(inner)]
        return [value] if isinstance(value, (int, float)) else []

    return collect
