"""The paper's benchmarks from data to table, offline: lmms-eval's own tasks, unchanged, on small data of ours.

What the model answers is given, so the scores that must come out are known.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from fusionvl.eval.benchmark_run import BenchmarkSettings, _command, _run
from fusionvl.eval.benchmark_scores import keep_benchmark
from fusionvl.eval.finished_answers import FINISHED
from fusionvl.eval.paper_table import COLUMNS
from fusionvl.eval.paper_tasks import PAPER_TASKS
from fusionvl.eval.report import make_report
from fusionvl.eval.score_store import SAMPLES, read_answers
from fusionvl.run_folder import claim

from .published import PUBLISHED

WITHOUT_JUDGE = {metric.column for name in PUBLISHED for metric in PAPER_TASKS[name].metrics}


@pytest.fixture
def stand_in(offline, monkeypatch, tmp_path):
    """The engine answers what the published data say."""
    (tmp_path / "hub").mkdir()
    monkeypatch.chdir(tmp_path / "hub")
    for published in PUBLISHED.values():
        published.write(Path.cwd())
    told = [pair for published in PUBLISHED.values() for pair in published.told()]
    (tmp_path / "answers.json").write_text(json.dumps(told))
    monkeypatch.setenv("STAND_IN_ANSWERS", str(tmp_path / "answers.json"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "stand_in"))


def test_seventeen_benchmarks_score_what_their_rules_say(stand_in, tmp_path):
    """In one process of lmms-eval, as each start of it takes long; the command itself is run in test_runs.py."""
    settings = BenchmarkSettings.of(device="cpu", batch_size=4)
    every = replace(PAPER_TASKS["seedbench"], name=",".join(PUBLISHED))
    folder = tmp_path / "runs"
    folder.mkdir()
    results_file = _run(_command(every, settings, folder), folder, on_cpu=True)
    assert results_file is not None, (folder / "log.txt").read_text()[-5000:]
    for name, published in PUBLISHED.items():
        own = folder / name
        claim(own, {"task": name, **settings.how}, told={"model": "stand-in"}, is_begun=False)
        (own / FINISHED).symlink_to(folder / FINISHED)
        results = keep_benchmark(PAPER_TASKS[name], own, results_file)
        assert results.metrics == pytest.approx(published.scores, abs=1e-3), name
        assert results.not_asked == 0, name
        answers = list(read_answers(own / SAMPLES).values())
        assert [answer.score for answer in answers] == pytest.approx(published.single), name
        assert all(answer.image_id for answer in answers), name
    report = make_report([folder])
    columns = [metric.column for _, metric in COLUMNS]
    assert [line.metric for line in report.lines] == [name for name in columns if name in WITHOUT_JUDGE]
    shown = {line.metric: line.cell("stand-in") for line in report.lines}
    assert shown["MME-P"] == "325.0", "a sum has no interval"
    assert re.fullmatch(r"70\.0 \[\d+\.\d, \d+\.\d\]", shown["DocVQA"])
