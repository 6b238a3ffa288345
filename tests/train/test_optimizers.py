"""The optimizer of a stage: which weights Muon takes and which AdamW, and that a run goes on exactly."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from fusionvl.train import run
from fusionvl.train.checkpoints import checkpoint_size
from fusionvl.train.config import LearningRates, StageConfig
from fusionvl.train.memory import expected_bytes, optimizer_bytes
from fusionvl.train.optimizers import MuonWithAdamW, create_optimizer, is_for_muon

RATES = LearningRates(vision_tower=1e-3, mapping=2e-3, interaction_layers=3e-3, decoder=4e-3)
BETAS = (0.9, 0.95)


@pytest.fixture
def stage(recipe) -> StageConfig:
    return replace(recipe.stages[0], optimizer="muon", learning_rates=RATES, weight_decay=0.1)


def step_of(model, tiny, optimizer):
    model(**tiny.batch([tiny.row(0, turns=2), tiny.row(1)], labels=True)).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def test_muon_takes_matrices_between_hidden_states(tiny):
    model = tiny.model()
    taken = {name for name, parameter in model.named_parameters() if is_for_muon(name, parameter, "muon")}
    assert "model.language_model.layers.0.mlp.up_proj.weight" in taken
    assert "model.vision_to_text.fc1.weight" in taken
    others = {name for name, _ in model.named_parameters()} - taken
    for table in ("embed_tokens.weight", "lm_head.weight", "patch_embedding.weight", "position_embedding.weight"):
        assert [name for name in others if name.endswith(table)], table
    assert not [name for name, parameter in model.named_parameters() if is_for_muon(name, parameter, "adamw")]
    assert all(
        parameter.ndim == 1 or "embed" in name or "lm_head" in name
        for name, parameter in model.named_parameters()
        if name in others
    )


def test_the_others_take_steps_of_torchs_adamw(tiny, stage):
    joined, apart = tiny.model(), tiny.model()
    apart.load_state_dict(joined.state_dict())
    rates = dict.fromkeys(vars(RATES), 2e-3)
    stage = replace(stage, learning_rates=LearningRates(**rates), weight_decay=0.0)
    optimizer = create_optimizer(joined.named_parameters(), stage, BETAS)
    others = {name: it for name, it in apart.named_parameters() if not is_for_muon(name, it, "muon")}
    before = {name: parameter.clone() for name, parameter in others.items()}
    adamw = torch.optim.AdamW(others.values(), lr=2e-3, weight_decay=0.0, betas=BETAS)
    step_of(joined, tiny, optimizer)
    step_of(apart, tiny, adamw)
    for name, parameter in others.items():
        assert torch.equal(dict(joined.named_parameters())[name], parameter), name
    assert not torch.equal(before["lm_head.weight"], apart.lm_head.weight)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_parts_learn_at_their_rates_and_matrices_alone_decay(tiny, stage, optimizer):
    model = tiny.model()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = create_optimizer(model.named_parameters(), replace(stage, optimizer=optimizer), BETAS).param_groups
    settings = {names[id(parameter)]: group for group in groups for parameter in group["params"]}
    assert settings.keys() == set(names.values())
    assert settings["model.vision_to_text.fc1.weight"]["lr"] == 2e-3
    assert settings["model.language_model.layers.0.mlp.up_proj.weight"]["lr"] == 4e-3
    assert settings["model.vision_to_text.fc1.weight"]["weight_decay"] == 0.1
    assert settings["model.vision_to_text.fc1.bias"]["weight_decay"] == 0.0
    assert settings["model.language_model.embed_tokens.weight"]["weight_decay"] == 0.0


def test_frozen_parameters_are_left_out(tiny, stage):
    model = tiny.model().requires_grad_(False)
    trained = model.model.vision_to_text.fc1.weight.requires_grad_(True)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = create_optimizer(model.named_parameters(), stage, BETAS)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]
    trained.grad = torch.randn_like(trained)
    optimizer.step()
    moved = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])]
    assert moved == ["model.vision_to_text.fc1.weight"]


def test_a_loaded_state_is_gone_on_from():
    torch.manual_seed(0)
    gradients = [torch.randn(4, 3) for _ in range(4)]

    def optimized(layer):
        return MuonWithAdamW([{"params": [layer.weight], "lr": 0.1}], [{"params": [layer.bias], "lr": 0.1}], BETAS)

    def step(layer, optimizer, gradient):
        layer.weight.grad, layer.bias.grad = gradient, gradient.sum(dim=1)
        optimizer.step()

    whole = nn.Linear(3, 4)
    optimizer = optimized(whole)
    for gradient in gradients[:2]:
        step(whole, optimizer, gradient)
    other = nn.Linear(3, 4)
    other.load_state_dict(whole.state_dict())
    resumed = optimized(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in resumed.param_groups:
        group["lr"] = 0.01  # what a schedule does reaches both
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    for gradient in gradients[2:]:
        step(whole, optimizer, gradient)
        step(other, resumed, gradient)
    assert torch.equal(whole.weight, other.weight)
    assert torch.equal(whole.bias, other.bias)


def test_a_closure_is_computed_once():
    layer = nn.Linear(3, 4)
    optimizer = MuonWithAdamW([{"params": [layer.weight]}], [{"params": [layer.bias]}], BETAS)
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = layer(torch.ones(1, 3)).sum()
        loss.backward()
        losses.append(loss.item())
        return losses[-1]

    assert optimizer.step(closure) == losses[0]
    assert len(losses) == 1
    assert layer(torch.ones(1, 3)).sum().item() < losses[0]


def test_it_holds_and_writes_what_was_expected(tiny, stage):
    model = tiny.model()
    optimizer = create_optimizer(model.named_parameters(), stage, BETAS)
    step_of(model, tiny, optimizer)
    assert optimizer_bytes(optimizer) == expected_bytes(model, "muon")["optimizer state"]
    assert expected_bytes(model, "muon")["optimizer state"] < expected_bytes(model)["optimizer state"]
    assert checkpoint_size(model, "muon") < checkpoint_size(model)


def test_a_run_goes_on_to_the_same_log_and_weights(tmp_path, recipe, train_until, assert_same):
    stages = [replace(stage, optimizer="muon", weight_decay=0.1) for stage in recipe.stages]
    recipe = replace(recipe, stages=stages)
    run.train(recipe, tmp_path / "whole")
    train_until(recipe, tmp_path / "killed", "2", steps=3)
    run.train(recipe, tmp_path / "killed")
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_pieces_of_matrices_are_refused(tmp_path, recipe, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    stages = [replace(stage, optimizer="muon", gradient_accumulation=2) for stage in recipe.stages]
    with pytest.raises(ValueError, match="Stage 1: optimizer muon needs whole matrices, and deepspeed_zero2 cuts"):
        run.train(replace(recipe, stages=stages, parallel="deepspeed_zero2"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
