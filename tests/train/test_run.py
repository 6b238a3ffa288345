from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from fusionvl.engine import FusionEngine
from fusionvl.train import run
from fusionvl.train.model import freeze_and_describe, part_of
from fusionvl.train.starting_point import starting_point


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_the_result_answers(tmp_path, recipe):
    folder = run.train(recipe, tmp_path / "out")
    engine = FusionEngine.from_pretrained(folder)
    assert isinstance(engine.ask(None, "what shape is in the image?", max_new_tokens=3), str)
    assert engine.model.config.early_guidance == "masked"
    assert "held_out_accuracy" in (tmp_path / "out" / "metrics.jsonl").read_text()


def test_finished_stages_are_kept(tmp_path, recipe, monkeypatch):
    run.train(recipe, tmp_path / "out")
    trained = []
    monkeypatch.setattr(run, "_train_stage", lambda *args: trained.append(args))
    run.train(recipe, tmp_path / "out")
    assert not trained


def test_another_recipe_does_not_continue_the_run(tmp_path, recipe):
    run.train(replace(recipe, stages=[]), tmp_path / "out")
    with pytest.raises(ValueError, match="another recipe"):
        run.train(replace(recipe, stages=[], seed=1), tmp_path / "out")


def test_a_rate_of_zero_freezes_a_part(tmp_path, recipe):
    for stage in recipe.stages:
        stage.learning_rates.vision_tower = 0.0
    folder = run.train(replace(recipe, stages=recipe.stages[:1]), tmp_path / "out")
    start, _ = starting_point(recipe)
    before, after = start.state_dict(), weights(folder)
    changed = {part_of(name) for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"mapping", "interaction_layers", "decoder"}
    assert "frozen" in freeze_and_describe(start, recipe.stages[0].learning_rates)
