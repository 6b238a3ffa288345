"""The optimizers of a stage: which weights Muon takes and which AdamW, how fast each part learns, and when."""

from dataclasses import replace

import pytest
import torch

from fusionvl.train.config import LearningRates, StageConfig
from fusionvl.train.optimizers import clip_gradients, create_optimizers, is_for_muon, rate_factor, take_step

RATES = LearningRates(vision_tower=1e-3, mapping=2e-3, interaction_layers=3e-3, decoder=4e-3)


@pytest.fixture
def stage(recipe) -> StageConfig:
    return replace(recipe.stages[0], optimizer="muon", learning_rates=RATES, weight_decay=0.1, adam_beta2=0.95)


def step_of(model, tiny, optimizers, factor=1.0):
    model(**tiny.batch([tiny.row(0, turns=2), tiny.row(1)], labels=True)).loss.backward()
    take_step(optimizers, factor)


def test_muon_takes_matrices_between_hidden_states(tiny):
    model = tiny.model()
    taken = {name for name, parameter in model.named_parameters() if is_for_muon(name, parameter, "muon")}
    assert "model.language_model.layers.0.mlp.up_proj.weight" in taken
    assert "model.vision_to_text.fc1.weight" in taken
    others = {name: parameter for name, parameter in model.named_parameters() if name not in taken}
    for table in ("embed_tokens.weight", "lm_head.weight", "patch_embedding.weight", "position_embedding.weight"):
        assert [name for name in others if name.endswith(table)], table
    assert all(each.ndim == 1 or "embed" in name or "lm_head" in name for name, each in others.items())
    assert not [name for name, parameter in model.named_parameters() if is_for_muon(name, parameter, "adamw")]


def test_both_take_steps_of_torchs(tiny, stage):
    ours, torchs = tiny.model(), tiny.model()
    stage = replace(stage, learning_rates=LearningRates(2e-3, 2e-3, 2e-3, 2e-3), weight_decay=0.0)
    optimizers = create_optimizers(ours.named_parameters(), stage)
    named = dict(torchs.named_parameters())
    matrices = [each for name, each in named.items() if is_for_muon(name, each, "muon")]
    others = [each for name, each in named.items() if not is_for_muon(name, each, "muon")]
    plain = [
        torch.optim.Muon(matrices, lr=1e-3, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=1e-3, weight_decay=0.0, betas=(0.9, 0.95)),
    ]
    step_of(ours, tiny, optimizers, factor=0.5)
    torchs(**tiny.batch([tiny.row(0, turns=2), tiny.row(1)], labels=True)).loss.backward()
    for optimizer in plain:
        optimizer.step()
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter, named[name]), name
        assert parameter.grad is None
        assert not torch.equal(parameter, tiny.model().get_parameter(name)), name


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_parts_learn_at_their_rates_and_matrices_alone_decay(tiny, stage, optimizer):
    model = tiny.model()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizers = create_optimizers(model.named_parameters(), replace(stage, optimizer=optimizer))
    groups = [group for each in optimizers for group in each.param_groups]
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
    optimizers = create_optimizers(model.named_parameters(), stage)
    assert [group["params"] for each in optimizers for group in each.param_groups] == [[trained]]


def test_rates_rise_and_fall_to_the_floor(stage):
    stage = replace(stage, warmup_ratio=0.1, min_learning_rate_ratio=0.5)
    factors = [rate_factor(stage, step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.75)
    assert factors[-1] == pytest.approx(0.5, abs=1e-3)
    assert rate_factor(stage, 0, 1) == 1.0


@pytest.mark.parametrize(("limit", "scaled"), [(1.0, True), (0.0, False), (1e9, False)])
def test_gradients_are_clipped_to_a_norm(limit, scaled):
    layer = torch.nn.Linear(2, 2)
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    assert clip_gradients(layer, limit) == pytest.approx(3 * 6**0.5)
    assert (float(layer.weight.grad[0, 0]) < 1) == scaled
