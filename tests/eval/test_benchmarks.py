"""Running lmms-eval and keeping what it wrote, without lmms-eval (see tests/lmms_eval)."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from fusionvl.eval import benchmark_run
from fusionvl.eval.benchmark_run import BenchmarkFailedError, BenchmarkSettings, run_benchmark
from fusionvl.eval.compare import compare
from fusionvl.eval.finished_answers import FinishedAnswer, finished_file, read_finished
from fusionvl.eval.paper_table import COLUMNS, PAPER_ROWS
from fusionvl.eval.paper_tasks import PAPER_TASKS
from fusionvl.eval.score_store import SAMPLES, read_answers
from fusionvl.run_folder import RowFile

REALWORLDQA, MME = PAPER_TASKS["realworldqa"], PAPER_TASKS["mme"]


class FakeLmmsEval:
    """As if it were installed: its runs are recorded, and write `results`, `samples` and `log` for any task."""

    def __init__(self):
        self.commands, self.environments = [], []
        self.results, self.samples, self.log, self.code = {"exact_match,none": 0.5}, [0.0, 1.0], "", 0

    def run(self, command, *, stdout, env, check):
        words = command[command.index("lmms_eval") + 1 : -1]
        options = dict(zip(words[::2], words[1::2], strict=True))
        self.commands.append(command)
        self.environments.append(env)
        stdout.write(self.log.encode())
        model_args = dict(part.split("=", 1) for part in options["--model_args"].split(","))
        task, folder = options["--tasks"], Path(options["--output_path"]) / "model"
        finished = RowFile(finished_file(Path(model_args["resume"]), 0))
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for number, entry in enumerate(self.samples):
            answer = FinishedAnswer(
                f"{len(self.commands)}-{number}", task, number, f"image {number // 2}", "A", 2, "stop"
            )
            finished.append(asdict(answer))
            logged = entry if isinstance(entry, dict) else {"exact_match": entry}
            rows.append({"doc_id": number, "input": "What?", "target": "A", "filtered_resps": "A", **logged})
        finished.close()
        if self.results is not None:
            (folder / "1_samples_x.jsonl").write_text("")
            (folder / f"1_samples_{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            counts = {"original": len(rows) + 1, "effective": len(rows)}
            content = {"results": {task: self.results}, "n-samples": {task: counts}}
            (folder / "1_results.json").write_text(json.dumps(content))
        return SimpleNamespace(returncode=self.code)


@pytest.fixture
def lmms_eval(monkeypatch):
    fake = FakeLmmsEval()
    monkeypatch.setattr(benchmark_run, "_lmms_eval_version", lambda: "0.7.3")
    monkeypatch.setattr(benchmark_run, "subprocess", SimpleNamespace(run=fake.run))
    for name in ("OPENAI_API_KEY", "API_TYPE", "MODEL_VERSION", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    return fake


@pytest.fixture
def settings(lmms_eval):
    return BenchmarkSettings.of(device="cpu")


def test_every_column_of_the_paper_has_exactly_one_metric():
    columns = [metric.column for _, metric in COLUMNS]
    assert len(set(columns)) == len(columns) == 23
    assert len(PAPER_TASKS) == 22
    assert all(row.keys() == set(columns) for row in PAPER_ROWS.values())


def test_scores_are_kept_as_those_of_our_own_tests_are(tmp_path, lmms_eval, settings):
    results = run_benchmark(REALWORLDQA, settings, tmp_path / "a")
    assert (results.metrics, results.questions, results.images) == ({"RWQA": 50.0}, 2, 1)
    assert results.trouble == ["2 of 3 questions"]
    answers = list(read_answers(tmp_path / "a" / SAMPLES).values())
    assert [(one.id, one.score, one.image_id, one.output) for one in answers] == [
        ("0", 0.0, "image 0", "A"),
        ("1", 1.0, "image 0", "A"),
    ]
    lmms_eval.samples, lmms_eval.results = [1.0, 1.0], {"exact_match,none": 1.0}
    run_benchmark(REALWORLDQA, settings, tmp_path / "b")
    (compared,) = compare(tmp_path / "a", tmp_path / "b").tasks
    assert (compared.title, compared.difference, compared.only_second) == ("RealWorldQA", 50.0, 1)


def test_a_finished_benchmark_is_read_and_not_run_again(tmp_path, lmms_eval, settings):
    first = run_benchmark(REALWORLDQA, settings, tmp_path)
    assert run_benchmark(REALWORLDQA, settings, tmp_path) == first
    assert len(lmms_eval.commands) == 1


def test_an_interval_is_that_of_a_mean_only(tmp_path, lmms_eval, settings):
    lmms_eval.samples = [0.0, 1.0, 1.0, 1.0]
    lmms_eval.results = {"exact_match,none": 0.75}
    assert run_benchmark(REALWORLDQA, settings, tmp_path / "a").intervals.keys() == {"RWQA"}
    lmms_eval.results = {"exact_match,none": 0.7}  # something else than the mean
    assert run_benchmark(REALWORLDQA, settings, tmp_path / "b").intervals == {}


@pytest.mark.parametrize("value", [None, "N/A"])
def test_a_number_that_lmms_eval_does_not_report_is_no_score(tmp_path, lmms_eval, settings, value):
    lmms_eval.results = {"mme_perception_score,none": 10.0, "mme_cognition_score,none": value}
    lmms_eval.samples = [{"mme_perception_score": {"score": 1.0}}, {"mme_cognition_score": {"score": 0.0}}]
    results = run_benchmark(MME, settings, tmp_path)
    assert (results.metrics, results.questions) == ({"MME-P": 10.0}, 2)
    assert any(f"MME-C: lmms-eval reports no mme_cognition_score,none, but {value!r}" in one for one in results.notes)


def test_the_judge_is_recorded_and_its_failures_are_told(tmp_path, lmms_eval, settings, monkeypatch):
    monkeypatch.setenv("MODEL_VERSION", "some-judge")
    lmms_eval.log = "7 failed to get a score.\n8 failed to get a score.\n"
    lmms_eval.results, lmms_eval.samples = {"gpt_eval_score,none": 25.0}, [{"gpt_eval_score": {"score": 0.25}}]
    results = run_benchmark(PAPER_TASKS["mmvet"], settings, tmp_path)
    assert results.metrics == {"MM-Vet": 25.0}
    assert results.notes[0] == "judge some-judge"
    assert results.notes[1].startswith("2 times the judge failed")
    monkeypatch.setenv("MODEL_VERSION", "other-judge")
    with pytest.raises(ValueError, match="judge: 'some-judge' there, 'other-judge' here"):
        run_benchmark(PAPER_TASKS["mmvet"], settings, tmp_path)


def test_answers_that_only_count_together_have_no_scores_of_their_own(tmp_path, lmms_eval, settings):
    lmms_eval.results, lmms_eval.samples = {"aAcc,none": 51.4}, [{"aAcc": {"gt_answer": "1"}}] * 2
    results = run_benchmark(PAPER_TASKS["hallusion_bench_image"], settings, tmp_path)
    assert (results.metrics, results.questions, results.intervals) == ({"HallB": 51.4}, 2, {})
    with pytest.raises(ValueError, match="HallusionBench: none of 2 questions has a score of its own in both"):
        compare(tmp_path, tmp_path)


def test_a_benchmark_that_fails_is_told_with_its_reason_and_asked_again(tmp_path, lmms_eval, settings):
    results, lmms_eval.results = lmms_eval.results, None
    lmms_eval.log = "\x1b[31mError during evaluation: no such data set. Please set `--verbosity=DEBUG` to"
    with pytest.raises(BenchmarkFailedError, match=r"RealWorldQA: no such data set; see .*log\.txt"):
        run_benchmark(REALWORLDQA, settings, tmp_path)
    lmms_eval.results, lmms_eval.log, lmms_eval.code = results, "", -9
    with pytest.raises(BenchmarkFailedError, match="wrote no results"):
        run_benchmark(REALWORLDQA, settings, tmp_path)
    lmms_eval.code = 0
    assert run_benchmark(REALWORLDQA, settings, tmp_path).metrics == {"RWQA": 50.0}


def test_settings_reach_lmms_eval_and_are_not_mixed(tmp_path, lmms_eval, settings):
    asked = BenchmarkSettings.of(device="cpu", num_latents=4, dtype="bfloat16", limit=5, batch_size=3, processes=2)
    lmms_eval.results, lmms_eval.samples = {"seed_image,none": 0.5}, []
    run_benchmark(PAPER_TASKS["seedbench"], asked, tmp_path)
    line = " ".join(lmms_eval.commands[0])
    assert "torch.distributed.run --standalone --nproc_per_node 2 -m lmms_eval" in line
    assert ",dtype=bfloat16,num_latents=4,weights=" in line
    assert ",several_images=skip,resume=" in line
    for option in ("--batch_size 3", "--limit 5", "--device cpu"):
        assert option in line
    assert lmms_eval.environments[0]["ACCELERATE_USE_CPU"] == "true"
    with pytest.raises(ValueError, match="limit: 5 there, None here; num_latents: 4 there"):
        run_benchmark(PAPER_TASKS["seedbench"], settings, tmp_path)
    with pytest.raises(ValueError, match="comma"):
        run_benchmark(MME, settings, tmp_path / "a,b")


def test_without_lmms_eval_the_way_to_it_is_told(monkeypatch):
    def missing(name):
        raise benchmark_run.PackageNotFoundError(name)

    monkeypatch.setattr(benchmark_run, "version", missing)
    with pytest.raises(ModuleNotFoundError, match=r"set_up_lmms_eval\.sh"):
        BenchmarkSettings.of()


def test_finished_answers_of_all_processes_are_read_but_for_half_a_line(tmp_path):
    answers = [FinishedAnswer(key, "pope", 3, "image", "yes\n\u2028ü", 2, "stop") for key in "ab"]
    for rank, answer in enumerate(answers):
        with RowFile(finished_file(tmp_path, rank)) as file:
            file.append(asdict(answer))
    assert read_finished(tmp_path) == answers
    path = finished_file(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:-9])
    assert read_finished(tmp_path) == answers[:1]
    for wrong in ("{}", "[1", '{"key": "a", "more": 1}'):
        path.write_text(wrong + "\n")
        with pytest.raises(ValueError, match=r"finished-1\.jsonl, line 1: "):
            read_finished(tmp_path)
