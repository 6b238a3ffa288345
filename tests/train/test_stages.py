"""Stages one by one: the same as all in one go, and never without the stage before."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from fusionvl import cli
from fusionvl.train import run
from fusionvl.train.config import ModelFromCheckpoint, dump_recipe
from fusionvl.train.stage import StageRun


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.fixture
def trained(monkeypatch):
    """Names of the stages that are trained, in order."""
    names = []
    train_stage = StageRun.train

    def watch(started, source):
        names.append(started.stage.name)
        train_stage(started, source)

    monkeypatch.setattr(StageRun, "train", watch)
    return names


def test_one_by_one_is_the_same_as_all_in_one_go(tmp_path, recipe, trained):
    whole = run.train(recipe, tmp_path / "whole")
    first = run.train(recipe, tmp_path / "single", "1")
    assert first == tmp_path / "single" / "stage-1" / "model"
    assert not (tmp_path / "single" / "model").exists()
    last = run.train(recipe, tmp_path / "single", "2")
    assert trained == ["1", "2", "1", "2"]
    assert last == tmp_path / "single" / "model"
    assert all(torch.equal(tensor, weights(last)[name]) for name, tensor in weights(whole).items())


def test_all_goes_on_after_a_single_stage(tmp_path, recipe, trained):
    run.train(recipe, tmp_path / "out", "1")
    run.train(recipe, tmp_path / "out", "1")
    run.train(recipe, tmp_path / "out")
    assert trained == ["1", "2"]


def test_a_stage_needs_the_one_before(tmp_path, recipe, trained):
    with pytest.raises(ValueError, match=r"Stage 2 starts from the result of stage 1.*run --stage 1 first"):
        run.train(recipe, tmp_path / "out", "2")
    assert not trained
    assert not (tmp_path / "out").exists()


def test_the_result_is_of_the_last_stage_even_if_an_earlier_one_is_done_again(tmp_path, recipe):
    whole = weights(run.train(recipe, tmp_path / "out"))
    (tmp_path / "out" / "stage-1" / "model").rename(tmp_path / "away")
    again = weights(run.train(recipe, tmp_path / "out"))
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())


def test_a_later_stage_from_a_checkpoint_of_an_earlier_one(tmp_path, recipe):
    first = run.train(recipe, tmp_path / "first", "1")
    second = replace(
        recipe, model=ModelFromCheckpoint(str(first), attention=recipe.model.attention), stages=recipe.stages[1:]
    )
    found = weights(run.train(second, tmp_path / "second"))
    whole = weights(run.train(recipe, tmp_path / "first"))
    assert all(torch.equal(tensor, found[name]) for name, tensor in whole.items())


def test_gradient_checkpointing_changes_no_weight(tmp_path, recipe):
    recipe = replace(recipe, stages=recipe.stages[:1])
    plain = weights(run.train(recipe, tmp_path / "plain"))
    saving = weights(run.train(replace(recipe, gradient_checkpointing=True), tmp_path / "saving"))
    for name, tensor in plain.items():
        torch.testing.assert_close(saving[name], tensor)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU with a C++ compiler")
def test_compiling_changes_no_weight(tmp_path, recipe):
    recipe = replace(recipe, stages=recipe.stages[:1], evaluate_every=2)
    plain = weights(run.train(recipe, tmp_path / "plain"))
    compiled = weights(run.train(replace(recipe, compile=True), tmp_path / "compiled"))
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--stage", "3"], "Recipe tiny has no stage 3, only ['1', '2']"),
        (["--stage", "2"], "run --stage 1 first, or --stage all"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, recipe, capsys, arguments, reason):
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_recipe(recipe))
    assert cli.main(["train", str(path), "--output", str(tmp_path / "out"), *arguments]) == 2
    assert reason in capsys.readouterr().err


def test_windows_larger_than_the_map_stop_the_run_before_its_first_stage(tmp_path, recipe):
    recipe.stages[0].num_latents = [4, 9]  # a map of 8 x 8 has no room for 3 x 3 windows of 3 x 3
    with pytest.raises(ValueError, match=r"Stage 1: 9 latent tokens with windows of 3x3 .* choose at most 4 latents"):
        run.train(recipe, tmp_path / "out")
    assert not list((tmp_path / "out").glob("stage-*"))


def test_latent_tokens_nobody_reads_stop_the_run(tmp_path, recipe):
    recipe.model.fusion = {"num_interaction_layers": 0}
    with pytest.raises(ValueError, match=r"Stage 1: num_latents is \[1, 4\], and the model has no interaction layers"):
        run.train(recipe, tmp_path / "out")


def test_a_last_stage_without_the_latent_tokens_of_the_model_stops_the_run(tmp_path, recipe):
    recipe.stages[-1].num_latents = [0]
    with pytest.raises(ValueError, match=r"interaction layers, and the last stage .* without the latent tokens"):
        run.train(recipe, tmp_path / "out")
    assert not list((tmp_path / "out").glob("stage-*"))
