"""A released model as people have it: SentencePiece tokenizer, shards, LongRoPE, code that must not run."""

import dataclasses
import importlib
import sys
from pathlib import Path

import pytest
from vllm import SamplingParams

from fusionvl.engine import FusionEngine

PATCH_SIZE = 32


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Phi-3.5's family in miniature, with random weights."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    released = importlib.import_module("released_folder")
    tiny = released.PRESETS["tiny"]
    wide_heads = dataclasses.replace(tiny.geometry, decoder_heads=2, decoder_key_value_heads=2)
    preset = dataclasses.replace(tiny, geometry=wide_heads)
    written = tmp_path / "released"
    released.write_released_folder(preset, written, released.released_shapes(preset), shard_bytes=2_000_000)
    assert len(list(written.glob("*.safetensors"))) > 1
    yield written
    assert "modeling_fusion" not in sys.modules


def test_a_released_folder(folder, load, asked, picture):
    from fusionvl.model import FusionForConditionalGeneration
    from fusionvl.processing import FusionProcessor

    model = load(folder, mm_processor_kwargs={"patch_size": PATCH_SIZE, "num_latents": 4})
    assert model.model_config.max_model_len == 4096
    ours = FusionForConditionalGeneration.from_pretrained(folder, dtype="float32").eval()
    engine = FusionEngine(ours, FusionProcessor.from_pretrained(folder, patch_size=PATCH_SIZE, num_latents=4))
    sampling = SamplingParams(temperature=0, max_tokens=12)
    conversations = [("what is it?",), ("what is it?", "a cup", "and what colour has it?"), ("<|end|>, or not?",)]
    for texts in conversations:
        (output,) = model.chat(asked(*texts, picture=picture), sampling, use_tqdm=False)
        roles = ["user", "assistant"] * 2
        messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
        messages[0]["content"] = [{"type": "image", "image": picture}, {"type": "text", "text": texts[0]}]
        expected = engine.answer([messages], max_new_tokens=12, do_sample=False)[0]
        assert len(output.prompt_token_ids) == expected.prompt_tokens
        assert output.outputs[0].text.strip() == expected.text
