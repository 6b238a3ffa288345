"""LoRA and QLoRA in a stage: what is trained, exact resume, and a result that is an ordinary model."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from torch.distributed.checkpoint import FileSystemReader

from fusionvl.engine import FusionEngine
from fusionvl.engine.loading import load_model
from fusionvl.train import run
from fusionvl.train.adapters import add_adapters, draw_adapters, merged
from fusionvl.train.config import LearningRates, Lora, MixtureData
from fusionvl.train.freezing import describe, freeze, is_adapter, part_of
from fusionvl.train.sharding import whole_weights
from fusionvl.train.starting_point import starting_point

RATES = LearningRates(vision_tower=0.0, mapping=1e-2, interaction_layers=1e-2, decoder=1e-2)
BASES = ("float32", "nf4")


@pytest.fixture(params=BASES)
def base(request):
    if request.param == "nf4":
        pytest.importorskip("bitsandbytes")
    return request.param


@pytest.fixture
def adapted(recipe, tmp_path):
    """The tiny recipe with one stage, whose decoder is adapted, on a handful of rows."""
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    turns = [{"from": "human", "value": "what shape is in the image?"}, {"from": "gpt", "value": "circle"}]
    rows = [{"id": f"id-{number}", "conversations": turns, "image": "red.png"} for number in range(12)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    data = MixtureData(datasets=[{"json_path": str(tmp_path / "rows.json")}])
    stage = replace(recipe.stages[0], data=data, learning_rates=RATES, lora=Lora(rank=4, dropout=0.1))
    return replace(recipe, stages=[stage], held_out=None, report_to=[])


def weights(folder):
    return load_file(folder / "model.safetensors")


def changed_parts(before, after):
    assert before.keys() == after.keys()
    return {part_of(name) for name in after if not torch.equal(before[name], after[name])}


def with_adapters(model, lora):
    add_adapters(model, lora)
    for name, parameter in list(model.named_parameters()):
        if is_adapter(name):
            layer, _, kind = name.rpartition(".")
            setattr(model.get_submodule(layer), kind, torch.nn.Parameter(torch.empty(parameter.shape)))
    draw_adapters(model, seed=0)
    freeze(model, RATES)
    return model


def taught(tiny, lora, batch, steps=6, family="llama"):
    """A tiny model after a few steps with adapters."""
    model = with_adapters(tiny.model(family), lora)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=0.01)
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.fixture
def batch(tiny):
    return tiny.batch([tiny.row(0, turns=2), tiny.row(1)], labels=True)


@torch.no_grad()
def logits(model, batch):
    return model(**batch, output_logits=True).logits


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path, adapted, base, train_until, assert_same):
    adapted.stages[0].lora.base = base
    run.train(adapted, tmp_path / "whole")
    train_until(adapted, tmp_path / "killed", "1", steps=3)
    run.train(adapted, tmp_path / "killed")
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_a_whole_stage_with_adapters(tmp_path, adapted):
    """One run, looked at from all sides: checkpoint, result, adapter apart, and the stage that follows."""
    start, _ = starting_point(adapted)
    first = adapted.stages[0]
    after = replace(first, name="2", lora=None, learning_rates=LearningRates(1e-2, 1e-2, 1e-2, 1e-2))
    folder = run.train(replace(adapted, stages=[first, after]), tmp_path / "out")

    written = FileSystemReader(tmp_path / "out" / "stage-1" / "checkpoint-4").read_metadata()
    held = [name.removeprefix("model.") for name in written.state_dict_metadata if name.startswith("model.")]
    assert {part_of(name) for name in held} == {"mapping", "interaction_layers", "decoder"}
    assert all(".lora_" in name for name in held if part_of(name) == "decoder")

    result = load_model(str(tmp_path / "out" / "stage-1" / "model"), torch.float32).state_dict()
    changed = changed_parts(start.state_dict(), result)
    assert changed == {"mapping", "interaction_layers", "decoder"}
    untouched = "model.language_model.embed_tokens.weight"
    assert torch.equal(start.state_dict()[untouched], result[untouched])

    adapter = PeftModel.from_pretrained(start, tmp_path / "out" / "stage-1" / "adapter")
    found = adapter.merge_and_unload().state_dict()
    for name, tensor in result.items():
        torch.testing.assert_close(found[name], tensor)

    assert changed_parts(result, load_model(str(folder), torch.float32).state_dict()) == set(vars(RATES))
    engine = FusionEngine.from_pretrained(folder)
    assert isinstance(engine.ask(None, "what shape is in the image?", max_new_tokens=3), str)


@pytest.mark.parametrize("family", ["qwen2", "phi3", "smollm"])  # biases, fused projections, tied embeddings
def test_merging_changes_no_answer(tiny, batch, family, base):
    model = taught(tiny, Lora(rank=4, mapping=True, interaction_layers=True, base=base), batch, family=family)
    before = logits(model, batch)
    assert (before - logits(tiny.model(family), batch)).abs().max() > 0.1
    weights = merged(model, dict(whole_weights(model)))
    plain = tiny.model(family)
    assert weights.keys() == dict(plain.named_parameters()).keys()
    plain.load_state_dict(weights, strict=False)
    plain.tie_weights()
    assert (logits(plain, batch) - before).abs().max() < 1e-4
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_4_bit_weights_are_learned_around(tiny, batch):
    """What QLoRA promises: adapters make up for the weights that lost precision."""
    pytest.importorskip("bitsandbytes")
    untrained, trained = (taught(tiny, Lora(rank=4, base="nf4"), batch, steps) for steps in (0, 20))
    with torch.no_grad():
        assert trained(**batch).loss < untrained(**batch).loss - 0.5


def test_4_bit_weights_stay_after_answering(tiny, batch):
    """bitsandbytes' own layer rearranges its weights in evaluation mode on some CPUs, and fails on narrow ones."""
    pytest.importorskip("bitsandbytes")
    model = taught(tiny, Lora(rank=4, base="nf4"), batch, steps=1)
    before = copy.deepcopy(model.state_dict())
    in_evaluation = logits(model, batch)
    assert torch.equal(logits(model.train(), batch), in_evaluation)
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_4_bit_layers_compute_in_autocasts_dtype(tiny, batch):
    four_bit = pytest.importorskip("fusionvl.train.four_bit")
    layer = torch.nn.Linear(64, 32)
    packed = four_bit.FrozenLinear4bit(layer.weight.detach(), layer.bias)
    plain = torch.nn.Linear(64, 32)
    plain.load_state_dict({"weight": packed.dequantized(), "bias": layer.bias})
    hidden = torch.randn(3, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert packed(hidden).dtype == torch.bfloat16
        torch.testing.assert_close(packed(hidden), plain(hidden))
    assert packed(hidden).dtype == torch.float32
    assert torch.equal(packed.bias, layer.bias)


def test_bfloat16_under_adapters(tmp_path, adapted):
    adapted.stages[0].lora.base = "bfloat16"
    with pytest.raises(ValueError, match=r"Stage 1: lora\.base is bfloat16, and this run computes in float32"):
        run.train(adapted, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    folder = run.train(replace(adapted, precision="bfloat16"), tmp_path / "out")
    assert {tensor.dtype for tensor in weights(folder).values()} == {torch.float32}


def test_gradient_checkpointing_changes_no_weight(tmp_path, adapted, base):
    adapted.stages[0].lora.base = base
    plain = weights(run.train(adapted, tmp_path / "plain"))
    saving = weights(run.train(replace(adapted, gradient_checkpointing=True), tmp_path / "saving"))
    for name, tensor in plain.items():
        torch.testing.assert_close(saving[name], tensor)


def test_the_table_tells_adapters_from_what_is_under_them(tiny, base):
    model = tiny.model("smollm")
    decoder = sum(weight.numel() for name, weight in model.named_parameters() if part_of(name) == "decoder")
    table = describe(with_adapters(model, Lora(rank=4, base=base)), RATES)
    rows = {line[:30].strip(): line[30:].split() for line in table.splitlines()}
    layers, hidden, keys, mlp = 4, 32, 16, 48
    adapters = layers * 4 * (2 * (hidden + hidden) + 2 * (hidden + keys) + 3 * (hidden + mlp))
    assert rows["decoder"] == [f"{decoder:,}", "frozen", "0"]
    assert rows["decoder, adapters"] == [f"{adapters:,}", "trained", "0.01"]
    assert rows["mapping"][1:] == ["trained", "0.01"]
    assert rows["vision_tower"][1] == "frozen"
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert trained == adapters + sum(int(rows[part][0].replace(",", "")) for part in ("mapping", "interaction_layers"))


def test_4_bit_weights_take_less_memory(tiny):
    pytest.importorskip("bitsandbytes")
    model = with_adapters(tiny.model(), Lora(rank=4, base="nf4"))
    packed = [weight for weight in model.parameters() if hasattr(weight, "quant_state")]
    wide = [m.weight for m in tiny.model().model.language_model.layers.modules() if isinstance(m, torch.nn.Linear)]
    assert sum(weight.numel() * weight.itemsize for weight in packed) * 8 == sum(weight.nbytes for weight in wide)
