"""`fusionvl eval` as a user types it."""

import json
from pathlib import Path

import pytest
from endpoint import serving
from PIL import Image

from fusionvl import cli
from fusionvl.engine.sources import shipped_model
from fusionvl.eval import judge
from fusionvl.eval.tasks import registry


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Some official questions, asked twice: with 16 latent tokens and with 1."""
    folder = tmp_path_factory.mktemp("scores")
    for name, latents in (("a", 16), ("b", 1)):
        assert run("eval", "easy-vqa", "--limit", 40, "--num-latents", latents, "--output", folder / name) == 0
    return folder


def test_the_short_form_scores_and_prints_accuracy_and_kinds(tmp_path, capsys):
    assert run("eval", "easy-vqa", "--limit", 30, "--output", tmp_path) == 0
    printed = capsys.readouterr().out
    samples = [json.loads(line) for line in (tmp_path / "easy_vqa" / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 30
    right = [sample["output"] == sample["reference"] for sample in samples]
    assert [sample["score"] for sample in samples] == right
    for line in (f"accuracy {100 * sum(right) / 30:.2f}", "accuracy/colour", "accuracy/shape", "accuracy/yes/no"):
        assert line in " ".join(printed.split())
    assert "30 of 9673 questions" in printed
    assert "times an image's features were known" in printed
    assert run("eval", "easy-vqa", "--limit", 20, "--output", tmp_path) == 2
    assert "not asked now" in capsys.readouterr().err


def test_each_model_has_a_folder_of_its_own_by_default(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "model").symlink_to(shipped_model())
    for options in ((), ("--model", "runs/mine/model")):
        assert run("eval", "easy-vqa", "--limit", 2, *options) == 0
    found = sorted(path.parent.relative_to("runs/eval").as_posix() for path in Path("runs/eval").rglob("results.json"))
    assert found == ["nano/easy_vqa", "runs--mine--model/easy_vqa"]


def test_the_long_form_is_the_same(tmp_path, capsys):
    assert run("eval", "run", "--limit", 5, "easy_vqa", "--output", tmp_path) == 0
    assert "5 of 9673" in capsys.readouterr().out


def test_other_settings_need_another_folder(scores, capsys):
    assert run("eval", "easy-vqa", "--limit", 40, "--num-latents", 4, "--output", scores / "a") == 2
    assert "num_latents: 16 there, 4 here" in capsys.readouterr().err


def test_compare(scores, capsys):
    assert run("eval", "compare", scores / "a", scores / "b", "--plot", scores / "c.png") == 0
    printed = capsys.readouterr().out
    assert "easy-VQA, test" in printed
    assert "only A right" in printed
    assert (scores / "c.png").stat().st_size > 0
    assert run("eval", "compare", scores / "a", scores / "nothing") == 2
    assert "There is no folder" in capsys.readouterr().err


def test_report(scores, tmp_path, capsys):
    assert run("eval", "report", scores) == 0
    assert "nano, num_latents 16" in capsys.readouterr().out
    assert run("eval", "report", scores / "a", "--format", "html", "--output", tmp_path / "deep" / "report.html") == 0
    assert "<table>" in (tmp_path / "deep" / "report.html").read_text()
    capsys.readouterr()
    assert run("eval", "report", scores / "a", scores / "b", "--format", "markdown") == 0
    assert "| benchmark | nano, num_latents 16 |" in capsys.readouterr().out
    assert run("eval", "report", tmp_path / "nothing") == 2


def test_tasks(capsys):
    assert run("eval", "tasks") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in registry.TASKS)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nonsense"], "no built-in task is called 'nonsense'"),
        (["--limit", "3"], "name tasks"),
        (["easy-vqa", "--tasks", "paper"], "name tasks"),
        (["pope", "--data", "/missing"], "/missing is not a folder"),
        (["easy-vqa", "--data", "/missing"], "give no folder"),
        (["easy-vqa", "--model", "/missing"], "There is no folder /missing"),
        (["easy-vqa", "--transformers", "/missing"], "There is no folder /missing"),
        (["easy-vqa", "--transformers", "x", "--model", "y"], "leave them out"),
        (["easy-vqa", "--transformers", "x", "--quantize", "int8"], "leave them out"),
        (["--tasks", "paper", "--quantize", "int8"], "which does not know --quantize"),
        (["easy-vqa", "--judge-url", "http://127.0.0.1:1/v1"], "both --judge-url and --judge-model"),
    ],
)
def test_mistakes_end_with_a_sentence_and_code_2(tmp_path, monkeypatch, capsys, arguments, reason):
    monkeypatch.chdir(tmp_path)
    assert run("eval", *arguments) == 2
    captured = capsys.readouterr()
    assert reason in captured.err
    assert "Traceback" not in captured.err
    assert not list(tmp_path.rglob("samples.jsonl"))


@pytest.mark.parametrize("arguments", [[], ["easy-vqa", "--shard", "2/2"], ["easy-vqa", "--limit", "0"]])
def test_wrong_usage_is_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        run("eval", *arguments)
    assert raised.value.code == 2
    assert "fusionvl eval" in capsys.readouterr().err


def test_several_tasks_read_folders_of_their_names(tmp_path, capsys):
    """Own questions and POPE from files: a wrong split, an empty answer and a missing image are told."""
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    (tmp_path / "own").mkdir()
    row = {"id": "1", "image": "../red.png", "question": "what color is the shape?", "answer": "red"}
    (tmp_path / "own" / "own.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "id": "2"}) + "\n")
    options = ("--data", tmp_path, "--output", tmp_path / "scores")
    assert run("eval", "own", "easy-vqa", *options, "--limit", 2) == 0  # the latter has no folder, and needs none
    assert "2 questions about 1 images" in capsys.readouterr().out
    assert len((tmp_path / "scores" / "easy_vqa" / "samples.jsonl").read_text().splitlines()) == 2
    assert run("eval", "easy-vqa", *options) == 2
    assert "easy_vqa: its questions come with the package" in capsys.readouterr().err
    assert len((tmp_path / "scores" / "own" / "samples.jsonl").read_text().splitlines()) == 2
    (tmp_path / "own" / "own.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n")
    assert run("eval", "own", "--data", tmp_path / "own", "--output", tmp_path / "other") == 2
    assert "have the id of another" in capsys.readouterr().err


def test_shares_of_two_processes(tmp_path, capsys):
    for index in (0, 1):
        assert run("eval", "easy-vqa", "--limit", 30, "--shard", f"{index}/2", "--output", tmp_path) == 0
        printed = capsys.readouterr().out
        assert ("others are not yet" in printed) == (index == 0)
    assert "30 of 9673 questions" in printed


def test_a_judge_is_asked_and_its_failure_is_said(tmp_path, monkeypatch, capsys):
    from stand_ins import JUDGED

    monkeypatch.setitem(registry.TASKS, "judged", JUDGED)
    monkeypatch.setattr(judge.EndpointJudge.__init__, "__kwdefaults__", {"retries": 0, "timeout": 5.0})
    with serving(script=[(500, {}), *["right"] * 11]) as server:
        where = ("--judge-url", server.url, "--judge-model", "test-model", "--output", tmp_path)
        assert run("eval", "judged", *where) == 0
        assert "1 not judged and left out" in capsys.readouterr().out
        server.script = ["right"]
        assert run("eval", "judged", *where) == 0
        assert "not judged" not in capsys.readouterr().out
    assert len(server.requests) == 13


def test_the_papers_benchmarks_run_through_lmms_eval(monkeypatch, tmp_path, capsys):
    from fusionvl.eval import lmms_eval_run
    from fusionvl.eval.paper_tasks import PAPER_TASKS

    asked = {}
    pope = next(task for task in PAPER_TASKS if task.task == "pope")

    def fake_run(output, **options):
        asked.update(options, output=output)
        return [lmms_eval_run.PaperScore(pope, {"POPE": 12.3})]

    monkeypatch.setattr(lmms_eval_run, "run_paper_tasks", fake_run)
    assert (
        run("eval", "--tasks", "paper", "--limit", 3, "--num-latents", 4, "--output", tmp_path, "--device", "cpu") == 0
    )
    assert (asked["output"], asked["limit"], asked["num_latents"], asked["device"]) == (tmp_path, 3, 4, "cpu")
    printed = capsys.readouterr().out
    assert "12.3" in printed
    assert "88.9" in printed
    assert run("eval", "--tasks", "paper", "--data", tmp_path) == 2
    assert "does not know --data" in capsys.readouterr().err
