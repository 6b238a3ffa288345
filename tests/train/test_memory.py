"""Where memory goes: what is computed and what is measured against counts by hand."""

import gc
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from fusionvl.model.projectors import MappingMLP
from fusionvl.train import run
from fusionvl.train.config import LearningRates
from fusionvl.train.memory import KeptForBackward, PeakMemory, expected_bytes, optimizer_bytes
from fusionvl.train.model import freeze_and_describe

FLOAT = 4
ONLY_MAPPING = LearningRates(vision_tower=0.0, mapping=1e-3, interaction_layers=0.0, decoder=0.0)


def test_weights_gradients_and_optimizer_state(tiny):
    model = tiny.model("smollm")  # its head is its embedding and counts once
    freeze_and_describe(model, ONLY_MAPPING)
    there, back = (48 * 32 + 32) + (32 * 32 + 32), (32 * 16 + 16) + (16 * 16 + 16)
    everything = sum(weight.numel() for weight in model.parameters())
    assert expected_bytes(model) == {
        "weights, trained": FLOAT * (there + back),
        "weights, frozen": FLOAT * (everything - there - back),
        "gradients": FLOAT * (there + back),
        "optimizer state": 2 * FLOAT * (there + back) + 8 * FLOAT,  # and a step count for each of eight tensors
    }


def test_the_optimizer_holds_what_was_expected(tiny):
    model = tiny.model()
    optimizer = torch.optim.AdamW(model.parameters())
    assert optimizer_bytes(optimizer) == 0
    model(**tiny.batch([tiny.row(0, turns=2), tiny.row(1)], labels=True)).loss.backward()
    optimizer.step()
    assert optimizer_bytes(optimizer) == expected_bytes(model)["optimizer state"]


def test_kept_for_the_backward_pass():
    mlp, features = MappingMLP(48, 32), torch.randn(2, 36, 48)
    kept = KeptForBackward(mlp)
    mlp(features)
    # The input and the output of fc1, which both products need, and that of the activation in between; no weights.
    assert kept.bytes == FLOAT * 2 * 36 * (48 + 32 + 32)


def test_only_the_next_forward_pass_counts():
    layer = nn.Linear(4, 4)
    kept = KeptForBackward(layer)
    layer(torch.randn(3, 4)).sum().backward()
    layer(torch.randn(100, 4))
    assert kept.bytes == FLOAT * 3 * 4
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks


def test_a_failing_forward_pass_leaves_nothing_behind():
    layer = nn.Linear(4, 4)
    kept = KeptForBackward(layer)
    with pytest.raises(RuntimeError):
        layer(torch.randn(3, 5))
    held = kept.bytes
    (torch.randn(100, requires_grad=True) ** 2).sum()
    assert kept.bytes == held
    assert not layer._forward_hooks


def test_frozen_and_checkpointed_layers_keep_less(tiny):
    def kept_by(model):
        kept = KeptForBackward(model)
        model(**tiny.batch([tiny.row(0), tiny.row(1)], labels=True))
        return kept.bytes

    model = tiny.model().train()
    everything = kept_by(model)
    freeze_and_describe(model, ONLY_MAPPING)
    assert kept_by(model) < everything
    model = tiny.model().train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert kept_by(model) < everything / 2


@pytest.mark.skipif(not PeakMemory.is_known(torch.device("cpu")), reason="the system does not tell")
def test_the_peak_outlives_what_caused_it():
    gc.collect()  # what earlier tests left must not be freed while this one measures
    memory = PeakMemory(torch.device("cpu"))
    block = torch.ones(2**24)
    most = 0.95 * block.nbytes  # the system counts in pages, and not to the last one
    assert memory.growth() >= most
    del block
    assert memory.growth() >= most
    assert memory.peak() > memory.growth()


def test_a_stage_writes_its_memory_down(tmp_path, recipe, caplog):
    recipe = replace(recipe, stages=recipe.stages[:1], held_out=None, report_to=[])
    recipe.stages[0].gradient_accumulation = 2
    with caplog.at_level("INFO"):
        folder = run.train(recipe, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "stage-1" / "memory.json").read_text())
    stored = (folder / "model.safetensors").stat().st_size
    assert report["expected"]["weights, trained"] == pytest.approx(stored, rel=0.1)
    assert report["expected"]["weights, frozen"] == 0
    assert report["measured"]["optimizer state"] == report["expected"]["optimizer state"]
    assert report["measured"]["kept for the backward pass"] > 0
    tables = [record.message for record in caplog.records if record.message.startswith("memory")]
    assert len(tables) == 2, "one before the first step, one after it"
    assert "together" in tables[0]
    assert "kept for the backward pass" in tables[1]
