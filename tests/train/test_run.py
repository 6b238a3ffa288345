"""A whole run: its result, its folder, what it refuses, what it takes over."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import fusionvl
from fusionvl import cli
from fusionvl.engine import FusionEngine
from fusionvl.train import run
from fusionvl.train.freezing import part_of
from fusionvl.train.recipe_loading import load_recipe
from fusionvl.train.stage import StageRun


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_the_result_answers_and_the_folder_says_what_was_run(tmp_path, recipe):
    folder = run.train(recipe, tmp_path / "out")
    engine = FusionEngine.from_pretrained(folder)
    assert isinstance(engine.ask(None, "what shape is in the image?", max_new_tokens=3), str)
    assert engine.model.config.early_guidance == "masked"
    assert load_recipe(tmp_path / "out" / "recipe.yaml") == recipe
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["settings"]["seed"] == recipe.seed
    assert record["versions"]["fusionvl"] == fusionvl.__version__
    assert "commit" in record


def test_finished_stages_are_kept(tmp_path, recipe, monkeypatch):
    run.train(recipe, tmp_path / "out")
    monkeypatch.setattr(StageRun, "train", None)
    run.train(recipe, tmp_path / "out")


def test_another_recipe_does_not_continue_the_run(tmp_path, recipe):
    run.train(recipe, tmp_path / "out", "1")
    with pytest.raises(ValueError, match=r"holds a run of other settings \(seed: 0 there, 1 here\)"):
        run.train(replace(recipe, seed=1), tmp_path / "out")


def test_a_corrected_recipe_takes_the_folder_of_a_run_that_never_began(tmp_path, recipe):
    wrong = replace(recipe, stages=[replace(recipe.stages[0], num_latents=[9])])
    with pytest.raises(ValueError, match="choose at most 4 latents"):
        run.train(wrong, tmp_path / "out")
    run.train(replace(recipe, stages=recipe.stages[:1]), tmp_path / "out")


def test_a_rate_of_zero_freezes_a_part(tmp_path, recipe):
    recipe.stages[0].learning_rates.vision_tower = 0.0
    folder = run.train(replace(recipe, stages=recipe.stages[:1]), tmp_path / "out")
    before, after = weights(tmp_path / "out" / "start"), weights(folder)
    changed = {part_of(name) for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"mapping", "interaction_layers", "decoder"}


@pytest.mark.parametrize("below", ["", "below/it"])
def test_an_output_that_cannot_be_a_folder(tmp_path, recipe_text, capsys, below):
    (tmp_path / "tiny.yaml").write_text(recipe_text)
    (tmp_path / "file").write_text("")
    assert cli.main(["train", str(tmp_path / "tiny.yaml"), "--output", str(tmp_path / "file" / below)]) == 2
    assert f"{tmp_path / 'file'} is a file. Choose another --output" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tracker", "reason"),
    [("wandb", "wandb is not installed"), ("paper", "paper is no tracker that accelerate knows")],
)
def test_trackers_that_are_not_there(tmp_path, recipe, tracker, reason):
    with pytest.raises(ValueError, match=reason):
        run.train(replace(recipe, report_to=[tracker]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "order", ["{recipe} {value} {options}", "{value} {options} {recipe}", "{options} {recipe} {value}"]
)
def test_values_may_stand_anywhere(tmp_path, recipe_text, capsys, caplog, order):
    (tmp_path / "tiny.yaml").write_text(recipe_text)
    options = f"--stage 1 --output {tmp_path / 'out'}"
    line = order.format(recipe=tmp_path / "tiny.yaml", value="stages.max_steps=1", options=options)
    assert cli.main(["train", *line.split()]) == 0
    assert f"The trained model is in {tmp_path / 'out' / 'stage-1' / 'model'}" in capsys.readouterr().out
    assert [record.getMessage() for record in caplog.records if "->" in record.getMessage()][:2] == [
        "stages.1.max_steps: 4 -> 1",
        "stages.2.max_steps: 4 -> 1",
    ]


@pytest.mark.parametrize("arguments", [[], ["a.yaml", "b.yaml"], ["a.yaml", "--steps", "3"]])
def test_command_lines_that_cannot_be(arguments):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["train", *arguments])
