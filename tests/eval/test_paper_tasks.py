"""The table of the paper's tasks and reading what lmms-eval wrote; without lmms-eval (see tests/lmms_eval)."""

import json

import pytest

from fusionvl.eval import lmms_eval_run
from fusionvl.eval.lmms_eval_run import PaperScore, paper_report, read_score, run_paper_tasks
from fusionvl.eval.paper_table import COLUMNS, PAPER_ROWS
from fusionvl.eval.paper_tasks import PAPER_TASKS, cv_bench

BY_NAME = {task.task: task for task in PAPER_TASKS}


@pytest.fixture
def with_lmms_eval(monkeypatch):
    """As if it were installed; its runs are recorded, and write what `answers` holds for the task."""
    commands, answers = [], {}

    def run(command, folder, *, on_cpu):
        task = command[command.index("--tasks") + 1]
        commands.append(command)
        folder.mkdir(parents=True, exist_ok=True)
        log, results = answers.get(task, ("", None))
        (folder / "log.txt").write_text(log)
        if results is not None:
            write(folder, task, results)

    monkeypatch.setattr(lmms_eval_run, "_lmms_eval_version", lambda: "0.7.3")
    monkeypatch.setattr(lmms_eval_run, "_run", run)
    for name in ("OPENAI_API_KEY", "API_TYPE", "MODEL_VERSION"):
        monkeypatch.delenv(name, raising=False)
    return commands, answers


def write(folder, task, results):
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "20260102_030405_results.json").write_text(json.dumps({"results": {task: results}}))


def test_every_column_of_the_paper_has_exactly_one_metric():
    columns = [metric.column for task in PAPER_TASKS for metric in task.metrics]
    assert sorted(columns) == sorted(column.label for column in COLUMNS)
    assert len(BY_NAME) == 22


def test_cv_bench_is_the_mean_of_2d_and_3d():
    def samples(source, right, all_):
        return [{"cv_bench_acc": {"source": source, "is_correct": number < right}} for number in range(all_)]

    # 2D: (1/2 + 3/4) / 2 = 5/8; 3D: 1/4
    mixed = samples("ADE20K", 1, 2) + samples("COCO", 6, 8) + samples("Omni3D", 1, 4)
    assert cv_bench(mixed) == pytest.approx((5 / 8 + 1 / 4) / 2)
    with pytest.raises(ValueError, match="none of COCO, Omni3D"):
        cv_bench(samples("ADE20K", 1, 2))


def test_units(tmp_path):
    write(tmp_path / "mme", "mme", {"mme_perception_score,none": 1595.9, "mme_cognition_score,none": 416.5})
    assert read_score(BY_NAME["mme"], tmp_path / "mme").values == {"MME-P": 1595.9, "MME-C": 416.5}
    write(tmp_path / "pope", "pope", {"pope_f1_score,none": 0.889, "pope_accuracy,none": 0.5})
    assert read_score(BY_NAME["pope"], tmp_path / "pope").values == {"POPE": pytest.approx(88.9)}
    write(tmp_path / "ai2d", "ai2d", {"exact_match,flexible-extract": 0.789})
    assert read_score(BY_NAME["ai2d"], tmp_path / "ai2d").values == {"AI2D": pytest.approx(78.9)}


@pytest.mark.parametrize("value", [None, "N/A"])
def test_a_number_that_lmms_eval_does_not_report_is_no_score(tmp_path, value):
    write(tmp_path, "mme", {"mme_perception_score,none": 10.0, "mme_cognition_score,none": value})
    score = read_score(BY_NAME["mme"], tmp_path)
    assert score.values == {"MME-P": 10.0}
    assert "MME-C" in score.trouble


def test_judge_tasks_are_not_run_without_a_key(tmp_path, with_lmms_eval):
    commands, _ = with_lmms_eval
    scores = run_paper_tasks(tmp_path)
    judged = {"mmbench_cn_dev", "mmvet", "hallusion_bench_image", "llava_in_the_wild", "mathvista_testmini_format"}
    assert {score.task.task for score in scores if "OPENAI_API_KEY is not set" in score.trouble} == judged
    assert {command[command.index("--tasks") + 1] for command in commands} == BY_NAME.keys() - judged
    text = paper_report(scores, "nano").render("terminal")
    assert "not run: needs the judge gpt-4," in text


def test_the_judge_is_recorded_and_its_failures_are_told(tmp_path, with_lmms_eval, monkeypatch):
    _, answers = with_lmms_eval
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.setenv("MODEL_VERSION", "some-judge")
    answers["mmvet"] = ("7 failed to get a score.\n8 failed to get a score.\n", {"gpt_eval_score,none": 57.2})
    answers["hallusion_bench_image"] = ("all well", {"aAcc,none": 51.4})
    wanted = [BY_NAME["mmvet"], BY_NAME["hallusion_bench_image"]]
    vet, hallusion = run_paper_tasks(tmp_path, tasks=wanted)
    assert (vet.values, vet.judge) == ({"MM-Vet": 57.2}, "some-judge")
    assert vet.trouble.startswith("2 times the judge failed")
    assert (hallusion.values, hallusion.judge, hallusion.trouble) == ({"HallB": 51.4}, "gpt-4", "")


def test_a_benchmark_that_fails_is_told_with_its_reason_and_asked_again(tmp_path, with_lmms_eval):
    commands, answers = with_lmms_eval
    answers["pope"] = ("\x1b[31mError during evaluation: no such data set. Please set `--verbosity=DEBUG` to", None)
    answers["mmstar"] = ("", {"average,none": 0.5})
    wanted = [BY_NAME["pope"], BY_NAME["mmstar"]]
    pope, mmstar = run_paper_tasks(tmp_path, tasks=wanted)
    assert pope.trouble.startswith("failed: no such data set (")
    assert mmstar.values == {"MMStar": 50.0}
    run_paper_tasks(tmp_path, tasks=wanted)
    assert [command[command.index("--tasks") + 1] for command in commands] == ["pope", "mmstar", "pope"]


def test_settings_reach_lmms_eval_and_are_not_mixed(tmp_path, with_lmms_eval):
    commands, _ = with_lmms_eval
    some = {"model": "owner/name", "limit": 5, "num_latents": 16, "dtype": "bfloat16", "tasks": [BY_NAME["seedbench"]]}
    run_paper_tasks(tmp_path, batch_size=3, device="cuda:1", processes=2, **some)
    line = " ".join(commands[0])
    assert "torch.distributed.run --standalone --nproc_per_node 2 -m lmms_eval" in line
    assert "pretrained=owner/name,dtype=bfloat16,num_latents=16,several_images=skip,resume=" in line
    assert "--batch_size 3" in line
    assert "--limit 5" in line
    assert "--device cuda:1" in line
    with pytest.raises(ValueError, match="other settings"):
        run_paper_tasks(tmp_path, **some | {"limit": 6})
    with pytest.raises(ValueError, match="comma"):
        run_paper_tasks(tmp_path / "new", model="a,b")


def test_the_report_has_the_papers_columns_in_its_order():
    scores = [PaperScore(BY_NAME["pope"], {"POPE": 88.88}), PaperScore(BY_NAME["mme"], {"MME-P": 1500.0}, "MME-C: no")]
    table = paper_report(scores, "nano", limit=8)
    assert table.header == ["benchmark", "nano", *PAPER_ROWS]
    assert [row[:3] for row in table.rows] == [
        ["POPE", "88.9", "88.9"],
        ["MME-P", "1500.0", "1595.9"],
        ["MME-C", "-", "416.5"],
    ]
    assert "first 8 questions" in table.notes[0]
    assert any("MME-C: no" in note for note in table.notes)


def test_without_lmms_eval_the_way_to_it_is_told(tmp_path, monkeypatch):
    def missing(name):
        raise lmms_eval_run.PackageNotFoundError(name)

    monkeypatch.setattr(lmms_eval_run, "version", missing)
    with pytest.raises(ModuleNotFoundError, match=r"set_up_lmms_eval\.sh"):
        run_paper_tasks(tmp_path)
    assert not list(tmp_path.iterdir())
