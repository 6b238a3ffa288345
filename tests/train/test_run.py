import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from fusionvl.engine import FusionEngine
from fusionvl.train import run
from fusionvl.train.model import freeze_and_describe, part_of
from fusionvl.train.starting_point import starting_point


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {(line["stage"], line["step"]): line["loss"] for line in lines if "loss" in line}


def weights(folder):
    return load_file(folder / "model.safetensors")


class KilledError(Exception):
    pass


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path, recipe, monkeypatch):
    whole = run.train(recipe, tmp_path / "whole")

    class KilledTrainer(run.FusionTrainer):
        def training_step(self, *args, **kwargs):
            if self.stage.name == "2" and self.state.global_step == 3:
                raise KilledError
            return super().training_step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(run, "FusionTrainer", KilledTrainer)
        with pytest.raises(KilledError):
            run.train(recipe, tmp_path / "killed")
    assert not (tmp_path / "killed" / "model").exists()
    resumed = run.train(recipe, tmp_path / "killed")

    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name


def test_a_half_written_checkpoint_is_not_used(tmp_path, recipe):
    recipe = replace(recipe, stages=recipe.stages[:1])
    whole = run.train(recipe, tmp_path / "whole")
    run.train(recipe, tmp_path / "torn")
    shutil.rmtree(tmp_path / "torn" / "stage-1" / "model")
    (tmp_path / "torn" / "stage-1" / "checkpoint-4" / "trainer_state.json").write_text('{"global_step": 4,')
    again = run.train(recipe, tmp_path / "torn")
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(again)[name]), name
    lines = [json.loads(line) for line in (tmp_path / "torn" / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == [1, 2, 3, 4], "steps that were run twice stand in the log once"


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


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, recipe):
    recipe.stages[0].learning_rates.decoder = float("inf")
    with pytest.raises(ValueError, match="not finite"):
        run.train(recipe, tmp_path / "out")


def test_a_rate_of_zero_freezes_a_part(tmp_path, recipe):
    for stage in recipe.stages:
        stage.learning_rates.vision_tower = 0.0
    folder = run.train(replace(recipe, stages=recipe.stages[:1]), tmp_path / "out")
    start, _ = starting_point(recipe)
    before, after = start.state_dict(), weights(folder)
    changed = {part_of(name) for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"mapping", "interaction_layers", "decoder"}
    assert "frozen" in freeze_and_describe(start, recipe.stages[0].learning_rates)
