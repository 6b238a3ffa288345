"""Tests of FUSION inside vLLM, on a CPU. They need vLLM, which has an environment of its own.

`scripts/set_up_vllm.sh VENV` makes it. The ordinary test run does not collect them. VLLM_REQUIRED=1, which CI sets
when it runs them, makes a missing vLLM an error. Models run in the test's own process unless a test says otherwise,
so that a test may look inside.
"""

import gc
import importlib.metadata
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

if not any(importlib.metadata.distributions(name="vllm")):  # a module of that name may be this very folder
    if os.environ.get("VLLM_REQUIRED"):
        raise ModuleNotFoundError("vLLM is not installed here: run scripts/set_up_vllm.sh and use its python")
    collect_ignore_glob = ["test_*.py"]

QUESTIONS = ["What colour is the circle?", "How many cups are there?", "Is there a blue shape in the image?"]
HEAD_WIDTH = 32  # the least that vLLM's attention on a CPU knows; also 64 / 2 of the decoder below

DECODER = {
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
}
FUSION = {"num_interaction_layers": 2, "interaction_stride": 2, "interaction_heads": 4}


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The shipped model's folder."""
    return Path(__file__).parents[2] / "src" / "fusionvl" / "assets" / "nano"


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Callable[..., Path]:
    """Writes the folder of a tiny model with random weights; decoder family and fields may be given."""
    from fusionvl.train.config import ModelFromScratch
    from fusionvl.train.scratch import build_from_scratch

    def make(family: str = "llama", decoder: dict[str, Any] | None = None, gain: float = 1.0, **fusion: Any) -> Path:
        spec = ModelFromScratch(
            vision=tiny.vision,
            decoder={**DECODER, **tiny.decoders[family], "head_dim": HEAD_WIDTH, **(decoder or {})},
            fusion={**FUSION, **fusion},
            vocab_size=320,
        )
        num_latents = 4 if spec.fusion["num_interaction_layers"] else 0
        model, processor = build_from_scratch(spec, QUESTIONS, num_latents=num_latents, seed=0)
        folder = tmp_path_factory.mktemp(family)
        tiny.randomise(model, gain=gain).eval().save_pretrained(folder)
        processor.save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def load() -> Iterator[Callable[..., Any]]:
    """Loads a folder into vLLM, in this process; ends it with the test."""
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    loaded: list[Any] = []

    def in_vllm(folder: Path, **options: Any) -> Any:
        settings = {"dtype": "float32", "enforce_eager": True, "max_num_seqs": 8, "seed": 0, **options}
        loaded.append(LLM(str(folder), **settings))
        return loaded[-1]

    yield in_vllm
    for model in loaded:
        model.llm_engine.engine_core.shutdown()
    loaded.clear()
    gc.collect()
    cleanup_dist_env_and_memory()


@pytest.fixture
def triangle() -> Image.Image:
    """One that the shipped model knows."""
    return Image.open(Path(__file__).parents[2] / "examples" / "triangle.png")


@pytest.fixture
def picture() -> Image.Image:
    """A picture."""
    return Image.linear_gradient("L").convert("RGB").resize((60, 40))


@pytest.fixture
def other_picture() -> Image.Image:
    """Another one."""
    return Image.radial_gradient("L").convert("RGB").resize((30, 50))


@pytest.fixture
def asked() -> Callable[..., list[dict[str, Any]]]:
    """Question, answer, question, ... as messages that vLLM takes; the picture stands in the first."""

    def messages(*texts: str, picture: Any = None) -> list[dict[str, Any]]:
        roles = ["user", "assistant"] * len(texts)
        found: list[dict[str, Any]] = [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in zip(roles, texts, strict=False)
        ]
        if picture is not None:
            found[0]["content"].insert(0, {"type": "image_pil", "image_pil": picture})
        return found

    return messages
