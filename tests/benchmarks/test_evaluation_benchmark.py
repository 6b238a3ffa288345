import json
import re

import pytest


@pytest.mark.slow
def test_a_tiny_run_shares_features_and_gives_the_same_answers(run_script, tmp_path):
    file = tmp_path / "results.json"
    run = run_script(
        "evaluation.py", "--preset", "nano", "--device", "cpu", "--threads", "1", "--images", "3", "--questions", "4",
        "--repeats", "1", "--json", str(file),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    results = json.loads(file.read_text())
    assert (results["hits"], results["questions"], results["differing"]) == (9, 12, 0)
    assert re.search(r"features shared: 9 of 12 times .*\n.*anew: 0 of 12 times", run.stdout)
    assert results["times"]["speed-up: every question anew / features shared"]["median"] > 0


def test_refuses_no_questions(run_script):
    run = run_script("evaluation.py", "--questions", "0")
    assert run.returncode == 2
    assert "must be at least 1" in run.stderr
