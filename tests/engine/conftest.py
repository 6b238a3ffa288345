"""A tiny engine: random weights, a tokenizer trained on a few sentences."""

from typing import Any

import pytest
from PIL import Image

from fusionvl.engine import FusionEngine
from fusionvl.train.config import ModelFromScratch
from fusionvl.train.scratch import build_from_scratch

QUESTIONS = ["What colour is the circle?", "How many cups are there?", "Is there a blue shape in the image?"]


def build(
    tiny: Any, family: str = "llama", cache_bytes: int = 2**24, decoder: dict[str, Any] | None = None, **fusion: Any
) -> FusionEngine:
    spec = ModelFromScratch(
        vision=tiny.vision,
        decoder={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            **tiny.decoders[family],
            **(decoder or {}),
        },
        fusion={"num_interaction_layers": 2, "interaction_stride": 2, "interaction_heads": 4, **fusion},
        vocab_size=320,
    )
    model, processor = build_from_scratch(spec, QUESTIONS, num_latents=4, seed=0)
    return FusionEngine(tiny.randomise(model, gain=2.0).eval(), processor, cache_bytes)


@pytest.fixture
def make_engine(tiny):
    """Builds an engine; `family`, `FusionConfig` fields, `decoder` fields and `cache_bytes` may be given."""
    return lambda **options: build(tiny, **options)


@pytest.fixture
def engine(make_engine):
    return make_engine()


@pytest.fixture
def picture():
    return Image.linear_gradient("L").convert("RGB").resize((60, 40))


@pytest.fixture
def other_picture():
    return Image.radial_gradient("L").convert("RGB").resize((30, 50))
