"""`fusionvl eval` as a user types it."""

import json
from pathlib import Path

import pytest
from PIL import Image

from fusionvl import cli
from fusionvl.engine.sources import shipped_model
from fusionvl.eval import benchmark_run
from fusionvl.eval.paper_tasks import PAPER_TASKS
from fusionvl.eval.score_store import write_scores


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
    header = capsys.readouterr().out.splitlines()[2]
    assert [cell.strip() for cell in header.strip("|").split("|")] == [
        "benchmark",
        "nano, num_latents 16",
        "nano, num_latents 1",
    ]
    assert run("eval", "report", tmp_path / "nothing") == 2


def test_tasks(capsys):
    assert run("eval", "tasks") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("easy-vqa", "scenes", "FILE.jsonl", *PAPER_TASKS))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nonsense"], "no test is called 'nonsense'"),
        (["--limit", "3"], "name tests"),
        (["easy-vqa", "--tasks", "paper"], "name tests"),
        (["scenes"], "give --data, a folder written by"),
        (["scenes", "--data", "/missing"], "/missing holds no provenance.json"),
        (["missing.jsonl"], "missing.jsonl is not a .jsonl file"),
        (["easy-vqa", "--data", "/missing"], "--data is the folder of scenes"),
        (["easy-vqa", "--model", "/missing"], "There is no folder /missing"),
        (["easy-vqa", "--transformers", "/missing"], "There is no folder /missing"),
        (["easy-vqa", "--transformers", "x", "--model", "y"], "leave them out"),
        (["easy-vqa", "--transformers", "x", "--quantize", "int8"], "leave them out"),
        (["easy-vqa", "--processes", "2"], "share easy_vqa with --shard"),
        (["--tasks", "paper", "--quantize", "int8"], "which does not know --quantize"),
        (["pope", "--shard", "0/2"], "which does not know --shard"),
        (["pope"], "set_up_lmms_eval.sh VENV"),
        (["easy-vqa", "--limit", "1", "--output", "file"], "file/easy_vqa/run.json cannot be written"),
        (["easy-vqa", "--limit", "1", "--output", "file/below"], "file/below/easy_vqa/run.json cannot be written"),
    ],
)
def test_mistakes_end_with_a_sentence_and_code_2(tmp_path, monkeypatch, capsys, arguments, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("something")
    assert run("eval", *arguments) == 2
    captured = capsys.readouterr()
    assert reason in captured.err
    assert "Traceback" not in captured.err
    assert not list(tmp_path.rglob("samples.jsonl"))


@pytest.mark.parametrize("action", ["report", "compare"])
@pytest.mark.parametrize("option", ["--output", "--plot"])
def test_a_table_or_plot_below_a_file_is_told(scores, tmp_path, capsys, action, option):
    (tmp_path / "file").write_text("something")
    folders = [scores / "a", scores / "b"][: 1 if action == "report" else 2]
    if (action, option) == ("report", "--plot"):
        pytest.importorskip("matplotlib")
        for name in ("mme", "pope"):
            lay_out(tmp_path / "runs" / name, name)
        folders.append(tmp_path / "runs")
    assert run("eval", action, *folders, option, tmp_path / "file" / "x") == 2
    assert "Choose another place" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["easy-vqa", "--shard", "2/2"], ["easy-vqa", "--limit", "0"]])
def test_wrong_usage_is_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        run("eval", *arguments)
    assert raised.value.code == 2
    assert "fusionvl eval" in capsys.readouterr().err


def test_several_tests_at_once_and_ones_own_questions(tmp_path, capsys):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    row = {"id": "1", "image": "red.png", "question": "what color is the shape?", "answer": "red"}
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps(row) + "\n" + json.dumps({**row, "id": "2"}) + "\n")
    assert run("eval", file, "easy-vqa", "--output", tmp_path / "scores", "--limit", 2) == 0
    assert "2 questions about 1 images" in capsys.readouterr().out
    for name in ("own-mine", "easy_vqa"):
        assert len((tmp_path / "scores" / name / "samples.jsonl").read_text().splitlines()) == 2
    file.write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n")
    assert run("eval", file, "--output", tmp_path / "other") == 2
    assert "1 ids stand more than once" in capsys.readouterr().err


def test_shares_of_two_processes(tmp_path, capsys):
    for index in (0, 1):
        assert run("eval", "easy-vqa", "--limit", 30, "--shard", f"{index}/2", "--output", tmp_path) == 0
        printed = capsys.readouterr().out
        assert ("others are not yet" in printed) == (index == 0)
    assert "30 of 9673 questions" in printed


def lay_out(folder, name):
    """Scores of a benchmark, as they are after a run."""
    benchmark_run.claim(folder, {"task": name}, told={"model": "nano"}, is_begun=False)
    values = {metric.column: (12.3, []) for metric in PAPER_TASKS[name].metrics}
    return write_scores(folder, [], values, task=name, title=PAPER_TASKS[name].title)


def test_the_papers_benchmarks_run_through_lmms_eval(monkeypatch, tmp_path, capsys):
    """All that need no judge; one that fails does not stop the others, and the command says so in the end."""
    asked = []

    def fake_run(task, settings, folder):
        asked.append((task.name, settings.limit, settings.how["num_latents"], settings.device, settings.processes))
        if task.name == "mme":
            raise benchmark_run.BenchmarkFailedError("MME: no such data set")
        return lay_out(folder, task.name)

    monkeypatch.setattr(benchmark_run, "_lmms_eval_version", lambda: "0.7.3")
    monkeypatch.setattr(benchmark_run, "run_benchmark", fake_run)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("API_TYPE", raising=False)
    options = ("--limit", 3, "--num-latents", 4, "--output", tmp_path, "--device", "cpu", "--processes", 2)
    assert run("eval", "--tasks", "paper", *options) == 2
    captured = capsys.readouterr()
    assert len(asked) == 17
    assert asked[0] == ("mmbench_en_dev_static", 3, 4, "cpu", 2)
    assert captured.out.count("OPENAI_API_KEY is not set") == 5
    assert "HallusionBench: not run, as it needs the judge gpt-4 and" in captured.out
    assert "1 of 22 benchmarks failed; the same command goes on: MME: no such data set" in captured.err
    assert run("eval", "pope", *options) == 0
    assert run("eval", "report", tmp_path) == 0
    assert "88.9" in capsys.readouterr().out
