"""The command line as a user meets it: output, exit codes, one sentence for every mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fusionvl import cli
from fusionvl.train.recipe_loading import load_recipe
from fusionvl.train.starting_point import starting_point


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory, request):
    """A model with random weights, as training starts from it."""
    folder = tmp_path_factory.mktemp("start")
    model, processor = starting_point(load_recipe(request.config.rootpath / "recipes" / "nano.yaml"))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (40, 30), "red").save(path)
    return path


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def test_ask_prints_an_answer_per_question(model_folder, picture, capsys):
    assert run("ask", picture, "one?", "two?", "--model", model_folder, "--num-latents", 4, "--max-new-tokens", 2) == 0
    printed = capsys.readouterr().out
    assert "> one?" in printed
    assert "> two?" in printed


def test_info_counts_parameters_without_loading_them(model_folder, capsys):
    assert run("info", model_folder) == 0
    printed = capsys.readouterr().out
    assert "llama, 4 layers of width 128" in printed
    assert "parameters, all" in printed


def test_chat_keeps_the_conversation(model_folder, picture, capsys, monkeypatch):
    lines = iter(["what is it?", "/image missing.png", "/reset", "/nonsense", "again?", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert run("chat", picture, "--model", model_folder, "--num-latents", 4, "--max-new-tokens", 2) == 0
    captured = capsys.readouterr()
    assert "missing.png" in captured.err
    assert captured.out.count("/reset") == 2  # the greeting, and the reply to a command that does not exist


def test_convert_a_released_checkpoint(reference_dir, tmp_path, capsys):
    source = reference_dir / "checkpoints" / "llama-siglip"
    assert run("convert", source, tmp_path / "ours", "--weights-only") == 0
    assert run("info", tmp_path / "ours") == 0
    assert "released in early layers" in capsys.readouterr().out
    assert run("convert", source, tmp_path / "ours", "--weights-only") == 2
    assert "exists already" in capsys.readouterr().err
    assert run("convert", source, tmp_path / "other") == 2
    assert "holds no tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "command", [["ask", "missing.png", "what?"], ["explain", "missing.png", "what?"], ["chat", "missing.png"]]
)
def test_a_wrong_picture_is_told_before_a_model_is_looked_for(capsys, command):
    assert run(*command, "--model", "/missing") == 2
    assert "cannot use missing.png as an image: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["ask", "missing.png", "what?"], "no such file"),
        (["ask", __file__, "what?"], "image"),
        (["ask", "{picture}", "what?", "--model", "/missing"], "There is no folder /missing"),
        (["ask", "{picture}", "what?", "--num-latents", "5"], "perfect square"),
        (["ask", "{picture}", "what?", "--num-latents", "100"], "global map"),
        (["ask", "{picture}", "what? " * 3000], "the context holds"),
        (["ask", "{picture}", "what?", "--device", "bogus"], "'bogus' is not a device"),
        (["info", "/missing"], "There is no folder"),
        (["train", "missing.yaml"], "no recipe"),
        (["synth", "run", "recipes/synth/small.yaml", "rows={{SynthSmell: 2}}"], "only SynthColor"),
        (["synth", "sheet", "nowhere"], "nowhere"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_end_with_a_sentence_and_code_2(model_folder, picture, capsys, arguments, reason):
    arguments = [argument.format(picture=picture) for argument in arguments]
    if arguments[0] == "ask" and "--model" not in arguments:
        arguments += ["--model", str(model_folder)]
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert "Traceback" not in error


def test_data_verify_names_what_is_corrupt(tmp_path, picture, model_folder, capsys):
    good = {"id": "good", "image": picture.name, "conversations": [
        {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A picture."}]}  # fmt: skip
    bad = {**good, "id": "bad", "image": "missing.png"}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [good, bad, good]))
    (tmp_path / "mixture.yaml").write_text("datasets:\n  - json_path: rows.jsonl\n    sampling_strategy: all\n")
    output = tmp_path / "report"
    code = run("data", "verify", tmp_path / "mixture.yaml", "--model", model_folder, "--output", output)
    printed = capsys.readouterr().out
    assert code == 1, "corrupt rows are not success"
    assert "missing.png" in printed
    assert "row 1" in printed
    report = json.loads((output / "report.json").read_text())
    assert (report["all"]["rows"], report["all"]["corrupt"], report["all"]["images"]) == (3, 1, 2)
    assert (output / "lengths.png").stat().st_size > 0


def test_scenes_can_be_verified_and_looked_at(tmp_path, model_folder, capsys):
    folder, mixture = tmp_path / "scenes", tmp_path / "llava" / "mixture.yaml"
    small = ("rows={SynthCount: 2, TextQA: 2}", "images.size=64")
    assert run("synth", "run", "recipes/synth/small.yaml", *small, "--output", folder) == 0
    assert run("synth", "export", folder, "--all", "--output", mixture.parent) == 0
    assert run("data", "verify", mixture, "--model", model_folder, "--output", tmp_path / "report") == 0
    assert run("synth", "sheet", folder, "--each", 1, "--columns", 2) == 0
    assert str(folder / "sheet.png") in capsys.readouterr().out
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.width > 2 * 256


def test_a_pickle_is_refused(model_folder, picture, tmp_path, capsys):
    folder = tmp_path / "pickle"
    folder.mkdir()
    for path in model_folder.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert run("ask", picture, "what?", "--model", folder) == 2
    assert "pickle" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["ask", "--help"], ["eval", "pope", "--help"], ["--version"]])
def test_help_loads_no_torch(arguments):
    script = (
        f"import sys; from fusionvl import cli\ntry: cli.main({arguments})\nfinally: assert 'torch' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment
    )
    assert finished.returncode == 0, finished.stderr
    assert "fusionvl" in finished.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "r.yaml", "--stages", "2"],
        ["train", "r.yaml", "--seed=2"],
        ["ask", "a.png", "what?", "--sed", "x=1"],
        ["synth", "run", "r.yaml", "--seed=2"],
        ["synth", "run", "r.yaml", "a=1", "--output", "o", "more"],
        ["ablate", "r.yaml", "--output", "o", "--bogus", "a=1"],
        ["synth", "sheet", "run", "--each", "2", "a=1"],
    ],
)
def test_what_is_no_argument(capsys, arguments):
    with pytest.raises(SystemExit) as raised:
        run(*arguments)
    assert raised.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["train"], ["synth", "run"], ["ablate"]])
@pytest.mark.parametrize(
    "arguments",
    [
        ["r.yaml", "seed=1", "images.artists=[a, b]", "--output", "folder"],
        ["r.yaml", "--output", "folder", "seed=1", "images.artists=[a, b]"],
        ["r.yaml", "seed=1", "--output", "folder", "images.artists=[a, b]"],
        ["--output", "folder", "r.yaml", "seed=1", "images.artists=[a, b]"],
        ["--output=folder", "r.yaml", "seed=1", "images.artists=[a, b]"],
    ],
)
def test_values_of_a_recipe_may_stand_anywhere(command, arguments):
    options = cli._parse([*command, *arguments])
    assert options.recipe == "r.yaml"
    assert options.overrides == ["seed=1", "images.artists=[a, b]"]
    assert options.output == Path("folder")


def test_a_full_standard_output_is_one_sentence(model_folder, picture):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this platform")
    command = [sys.executable, "-m", "fusionvl", "info", str(model_folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with open("/dev/full", "w") as full:
        finished = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment
        )
    assert finished.returncode == 2
    assert finished.stderr.strip() == "fusionvl info: [Errno 28] No space left on device"


def test_wrong_usage_is_code_2(capsys):
    with pytest.raises(SystemExit) as raised:
        run("ask", "only-an-image.png")
    assert raised.value.code == 2
