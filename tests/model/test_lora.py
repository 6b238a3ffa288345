"""LoRA on a FUSION: exactly the layers that were asked for, through a whole life of an adapter."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from fusionvl import FusionForConditionalGeneration, lora_targets

SEPARATE = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"}
SEPARATE |= {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}
FUSED = {"self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"}
MAPPING = {f"model.{part}.fc{i}" for part in ("vision_to_text", "text_to_vision") for i in (1, 2)}
INTERACTION = {
    f"model.interaction_layers.{layer}.{name}"
    for layer in range(2)
    for name in ("input_proj", "context_proj", "fc1", "fc2", *(f"attention.{x}_proj" for x in "qkvo"))
}


def decoder(family):
    names = FUSED if family == "phi3" else SEPARATE
    return {f"model.language_model.layers.{layer}.{name}" for layer in range(4) for name in names}


def adapt(model, **options):
    return get_peft_model(model, LoraConfig(r=2, target_modules=lora_targets(model.config, **options)))


def wrapped(adapted):
    layers = {name for name, module in adapted.named_modules() if hasattr(module, "lora_A")}
    return {name.removeprefix("base_model.model.") for name in layers}


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({}, set()),
        ({"mapping": True}, MAPPING),
        ({"interaction_layers": True}, INTERACTION),
        ({"mapping": True, "interaction_layers": True}, MAPPING | INTERACTION),
    ],
)
def test_exactly_these_layers(tiny, family, options, more):
    assert wrapped(adapt(tiny.model(family), **options)) == decoder(family) | more


def test_the_base_model_alone_is_matched_too(tiny):
    found = wrapped(adapt(tiny.model().model, mapping=True))
    assert {f"model.{name}" for name in found} == decoder("llama") | MAPPING


def test_no_interaction_layers_to_adapt(tiny):
    with pytest.raises(ValueError, match="the model has none"):
        lora_targets(tiny.config(num_interaction_layers=0), interaction_layers=True)


def test_train_save_load_merge(tiny, family, tmp_path):
    batch = tiny.batch([tiny.row(0, turns=2), tiny.row(1)], labels=True)
    adapted = adapt(tiny.model(family), mapping=True, interaction_layers=True)
    untrained = adapted(**batch).loss
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    for _ in range(8):
        adapted(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        loss = adapted(**batch).loss.item()
        assert loss < untrained.item() - 0.1
        adapted.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(tiny.model(family), tmp_path)
        assert loaded(**batch).loss.item() == pytest.approx(loss, abs=1e-6)
        merged = loaded.merge_and_unload()
        assert type(merged) is FusionForConditionalGeneration
        assert merged(**batch).loss.item() == pytest.approx(loss, abs=1e-4)


@torch.no_grad()
def logits_of(model, batch):
    return model(**batch, output_logits=True).logits


def test_an_adapter_for_causal_language_models_trains_and_merges(tiny, family):
    """PEFT's wrapper for `CAUSAL_LM` passes arguments that FUSION does not take."""
    model = tiny.model(family)
    batch = tiny.batch([tiny.row(0), tiny.row(1)], labels=True)
    base = logits_of(model, batch)
    targets = r".*language_model\.layers\.\d+\.self_attn\.(q_proj|v_proj|qkv_proj)"
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM"))
    assert (logits_of(adapted, batch) - base).abs().max() < 1e-6
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=10.0)
    for _ in range(2):
        loss = adapted(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    logits = logits_of(adapted.eval(), batch)
    assert (logits - base).abs().max() > 1e-3
    merged = adapted.merge_and_unload()
    assert type(merged) is FusionForConditionalGeneration
    assert (logits_of(merged, batch) - logits).abs().max() <= 1e-4
