"""Starting points that other tests do not reach: a checkpoint as the authors released it, a GGUF converted once."""

import json
from dataclasses import replace

import torch

from fusionvl.engine.loading import load_model
from fusionvl.train import run
from fusionvl.train.config import MixtureData, ModelFromCheckpoint, ModelFromScratch
from fusionvl.train.starting_point import starting_point


def test_a_released_checkpoint_is_trained(tmp_path, recipe, released):
    recipe = replace(recipe, model=ModelFromCheckpoint(str(released)), stages=recipe.stages[1:], held_out=None)
    stage = recipe.stages[0]
    stage.max_steps, stage.num_latents, stage.max_length = 2, [4], 2048
    before, _ = starting_point(recipe)
    after = load_model(str(run.train(recipe, tmp_path / "out")), torch.float32)
    assert after.config.early_guidance == "released"
    trained = before.state_dict()
    same = [name for name, tensor in after.state_dict().items() if torch.equal(tensor, trained[name])]
    assert same == []
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line["vision_mapping_loss"] > 0 for line in lines)


def test_a_start_is_made_once(tmp_path, recipe, monkeypatch, train_until, assert_same):
    made = []

    def make(recipe):
        made.append(1)
        return starting_point(recipe)

    monkeypatch.setattr(run, "starting_point", make)
    run.train(recipe, tmp_path / "whole")
    train_until(recipe, tmp_path / "killed", "1", steps=3)
    run.train(recipe, tmp_path / "killed")
    assert len(made) == 2, "one for each run, none for going on"
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_runs_on_other_data_start_from_the_same_weights_when_the_tokenizer_has_its_own(recipe):
    assert isinstance(recipe.model, ModelFromScratch)
    words = MixtureData(datasets=[{"kind": "easy-vqa", "questions": "open", "max_turns": 1}])
    shared = replace(recipe, model=replace(recipe.model, tokenizer_data=words, vocab_size=400))
    one, one_processor = starting_point(replace(shared, stages=shared.stages[:1]))
    other, other_processor = starting_point(replace(shared, stages=shared.stages[1:]))
    assert one_processor.tokenizer.get_vocab() == other_processor.tokenizer.get_vocab()
    weights = other.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in one.state_dict().items())
    own = replace(shared, model=replace(shared.model, tokenizer_data=None), stages=shared.stages[1:])
    _, own_processor = starting_point(own)
    assert own_processor.tokenizer.get_vocab() != one_processor.tokenizer.get_vocab()
