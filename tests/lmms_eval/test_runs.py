"""The command with the shipped model: killed, gone on with in two processes, read again, compared."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fusionvl.data.easy_vqa import load_split
from fusionvl.eval.compare import compare
from fusionvl.eval.score_store import SAMPLES, read_answers, read_results

from .published import Published

QUESTIONS = 21  # odd, so that two processes have unequal shares
WORDS = "\nAnswer the question using a single word or phrase."  # the task's


def rows():
    """Questions of the official test images in POPE's shape, every fourth reference spoilt: scores are not all one."""
    pairs = [(image, turn) for image in load_split("test") for turn in image.turns if turn.answer in ("yes", "no")]
    found = []
    for number, (image, turn) in enumerate(pairs[:QUESTIONS]):
        answer = turn.answer if number % 4 else {"yes": "no", "no": "yes"}[turn.answer]
        picture = {"bytes": image.path.read_bytes(), "path": None}
        found.append({"question_id": str(number), "question": turn.question, "answer": answer, "image": picture})
    return found


@pytest.fixture
def hub(offline, tmp_path, monkeypatch):
    (tmp_path / "hub").mkdir()
    monkeypatch.chdir(tmp_path / "hub")
    published = Published("lmms-lab-encoder/POPE", "test", rows(), [], {}, [])
    published.write(Path.cwd())
    return published


def command(output, *options):
    words = ["eval", "pope", "--device", "cpu", "--output", str(output), *map(str, options)]
    return [sys.executable, "-m", "fusionvl", *words]


def finished(output):
    files = (output / "pope" / "finished").glob("*.jsonl")
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def test_a_killed_run_goes_on_in_two_processes(hub, engine, tmp_path):
    output = tmp_path / "runs"
    with subprocess.Popen(command(output, "--batch-size", 1), start_new_session=True) as process:
        while process.poll() is None and not finished(output):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)  # with lmms-eval, which it started
    before = finished(output)
    assert 0 < len(before) < QUESTIONS
    assert not (output / "pope" / "results.json").exists()

    again = subprocess.run(command(output, "--processes", 2), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr + (output / "pope" / "log.txt").read_text()[-3000:]
    after = finished(output)
    assert len({line["key"] for line in after}) == len(after) == QUESTIONS
    assert before[0] in after
    assert {path.name for path in (output / "pope" / "finished").glob("*.jsonl")} == {
        "finished-0.jsonl",
        "finished-1.jsonl",
    }

    said = [engine.ask(row["image"]["bytes"], row["question"] + WORDS, max_new_tokens=128) for row in hub.rows]
    pairs = list(zip((row["answer"] for row in hub.rows), said, strict=True))
    answers = list(read_answers(output / "pope" / SAMPLES).values())
    assert [answer.output for answer in answers] == said
    assert [answer.score for answer in answers] == [wanted == answer for wanted, answer in pairs]
    hits = pairs.count(("yes", "yes"))
    f1 = 2 * hits / (2 * hits + pairs.count(("yes", "no")) + pairs.count(("no", "yes")))
    assert 0.3 < f1 < 1, "the model answers well, and spoilt references count as wrong"
    results = read_results(output / "pope")
    assert results.metrics == {"POPE": pytest.approx(100 * f1)}
    assert f"{100 * f1:.2f}" in again.stdout
    assert results.images < QUESTIONS, "questions about one picture are drawn together"

    log = output / "pope" / "log.txt"
    written = log.stat().st_mtime_ns
    third = subprocess.run(command(output), capture_output=True, text=True, check=False)
    assert (third.returncode, log.stat().st_mtime_ns) == (0, written), "a finished benchmark is read"
    (same,) = compare(output, output / "pope").tasks
    assert (same.questions, same.difference, same.p_value) == (QUESTIONS, 0.0, 1.0)
