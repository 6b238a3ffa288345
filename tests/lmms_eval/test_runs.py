"""Whole runs of lmms-eval as a process, offline, with the shipped model."""

import json
import subprocess
import time

import pytest

from .conftest import QUESTIONS, SHAPES, lmms_eval, offline, results_in, run


def check(output, expected):
    answers, scores = expected
    written_scores, written_answers = results_in(output)
    assert written_answers == answers
    for name, metrics in scores.items():
        for metric, value in metrics.items():
            assert written_scores[name][metric] == pytest.approx(value), (name, metric)


def test_the_expected_scores_mean_something(expected):
    """The model answers well, spoilt references count as wrong, and letters, F1 and likeness differ from equality."""
    _, scores = expected
    for metrics in scores.values():
        for value in metrics.values():
            assert 0.4 < value < 1.0
    assert scores["local_anls"]["anls,none"] > 0.75


def test_five_shapes_of_benchmarks(local_tasks, expected, tmp_path):
    """All at once."""
    folder, _ = local_tasks
    run(lmms_eval(SHAPES, folder, tmp_path))
    check(tmp_path, expected)


def finished(folder):
    return [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]


def test_a_killed_run_goes_on_in_two_processes(local_tasks, expected, tmp_path):
    folder, _ = local_tasks
    resume = tmp_path / "finished"
    command = lmms_eval(SHAPES, folder, tmp_path / "killed", f"resume={resume}", batch_size=1)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=offline()) as process:
        while process.poll() is None and not (resume.is_dir() and finished(resume)):
            time.sleep(0.01)
        process.kill()
    before = finished(resume)
    assert 0 < len(before) < QUESTIONS * len(SHAPES)
    assert not list(tmp_path.glob("killed/*/*_results.json"))

    run(lmms_eval(SHAPES, folder, tmp_path / "whole", f"resume={resume}", processes=2))
    check(tmp_path / "whole", expected)
    after = finished(resume)
    assert len({line["key"] for line in after}) == len(after) == QUESTIONS * len(SHAPES)
    assert {path.name for path in resume.iterdir()} == {"finished-0.jsonl", "finished-1.jsonl"}
