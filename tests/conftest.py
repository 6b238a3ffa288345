"""Tiny models and batches for every room: real geometry in miniature, weights large enough that each part matters."""

import copy
import functools
import math
import random
import resource
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, SiglipVisionConfig

from fusionvl.model import FusionConfig, FusionForConditionalGeneration

VOCABULARY = 64
IMAGE_TOKEN, LATENT_TOKEN = 64, 65  # outside the vocabulary on purpose
PADDING = 0

# 6 x 6 patches; four of five layers are used.
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "image_size": 24,
    "patch_size": 4,
}

# What each decoder family needs beyond the shared tiny geometry.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "phi3": {"model_type": "phi3", "sliding_window": None},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 8},
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "smollm": {"model_type": "llama", "tie_word_embeddings": True},
}


def tiny_config(family: str = "llama", vision: dict[str, Any] | None = None, **fusion: Any) -> FusionConfig:
    """6 x 6 patches, four of five encoder layers, four decoder layers, interaction after decoder layers 0 and 2."""
    decoder = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": PADDING,
        **FAMILIES[family],
    }
    encoder = {
        **VISION,
        "vision_use_head": False,
        **(vision or {}),
    }
    return FusionConfig(
        vision_config=SiglipVisionConfig(**encoder),
        text_config=CONFIG_MAPPING[decoder.pop("model_type")](**decoder),
        **{"num_interaction_layers": 2, "interaction_stride": 2, "interaction_heads": 4, **fusion},
    )


@torch.no_grad()
def randomise(model: torch.nn.Module, gain: float = 1.0, seed: int = 0) -> torch.nn.Module:
    """Redraw every weight: fresh ones are so small, or zero, that a part could be missing unseen.

    With a gain of 2 greedy answers vary from token to token; with 1 rounding errors stay smallest.
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            fan_in = parameter[0].numel()
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * gain / math.sqrt(fan_in))
        else:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@functools.cache
def _built(family: str, fusion: tuple[tuple[str, Any], ...]) -> FusionForConditionalGeneration:
    model = randomise(FusionForConditionalGeneration(tiny_config(family, **dict(fusion)))).eval()
    model.generation_config.eos_token_id = None  # random weights would end where they like
    model.generation_config.pad_token_id = PADDING
    return model


def tiny_model(family: str = "llama", **fusion: Any) -> FusionForConditionalGeneration:
    """A model of its own for the caller, in evaluation mode, always with the same weights."""
    return copy.deepcopy(_built(family, tuple(sorted(fusion.items()))))


def make_row(
    seed: int,
    turns: int = 1,
    image: bool = True,
    num_latents: int = 4,
    num_image_tokens: int = 36,
    guide_length: int = 5,
    answer_last: bool = True,
) -> dict[str, Any]:
    """One conversation as the processor lays it out: ids, types and labels as lists, guide and pixels as tensors."""
    generator = torch.Generator().manual_seed(1000 + seed)

    def words(count: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (count,), generator=generator).tolist()

    ids, types, labels = [1], [0], [-100]

    def extend(tokens: list[int], kind: int = 0, answer: bool = False) -> None:
        ids.extend(tokens)
        types.extend([kind] * len(tokens))
        labels.extend(tokens if answer else [-100] * len(tokens))

    for turn in range(turns):
        if image and turn == 0:
            extend(words(1))
            extend([IMAGE_TOKEN] * num_image_tokens, 1)
        if image and num_latents:
            extend(words(1))
            extend([LATENT_TOKEN] * num_latents, 2)
        extend(words(3 + (seed + turn) % 3))
        extend(words(1), 3 if image else 0)
        if turn < turns - 1 or answer_last:
            extend(words(3), answer=True)
    guide = torch.randint(3, VOCABULARY, (guide_length + seed % 2,), generator=generator)
    pixels = torch.rand(5, 3, 24, 24, generator=generator) * 2 - 1
    return {"ids": ids, "types": types, "labels": labels, "guide": guide, "pixels": pixels, "image": image}


def make_batch(rows: list[dict[str, Any]], side: str = "right", labels: bool = False) -> dict[str, torch.Tensor]:
    """Pad rows into the processor's output."""
    length = max(len(row["ids"]) for row in rows)

    def padded(name: str, filler: int) -> torch.Tensor:
        filled = []
        for row in rows:
            padding = [filler] * (length - len(row["ids"]))
            values = [1] * len(row["ids"]) if name == "mask" else row[name]
            filled.append(values + padding if side == "right" else padding + values)
        return torch.tensor(filled)

    batch = {
        "input_ids": padded("ids", PADDING),
        "attention_mask": padded("mask", 0),
        "mm_token_type_ids": padded("types", 0),
    }
    if labels:
        batch["labels"] = padded("labels", -100)
    with_image = [row for row in rows if row["image"]]
    if with_image:
        guides = [row["guide"] for row in with_image]
        guide_mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(guide) for guide in guides], batch_first=True)
        batch["pixel_values"] = torch.stack([row["pixels"] for row in with_image])
        batch["guide_input_ids"] = torch.nn.utils.rnn.pad_sequence(guides, batch_first=True)
        batch["guide_attention_mask"] = guide_mask
    return batch


class Tiny:
    """The factories, under one name."""

    families = tuple(FAMILIES)
    decoders = FAMILIES
    vision = VISION
    config = staticmethod(tiny_config)
    model = staticmethod(tiny_model)
    randomise = staticmethod(randomise)
    row = staticmethod(make_row)
    batch = staticmethod(make_batch)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Every test draws the same numbers, whichever tests ran before it in the process."""
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny() -> type[Tiny]:
    """Tiny configs, models, rows and batches."""
    return Tiny


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """What the released code computed, thinned; its README says how."""
    return Path(__file__).parent / "reference"


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Every decoder family."""
    return request.param


@pytest.fixture
def count_calls() -> Callable[[torch.nn.Module], list[tuple[torch.Size, ...]]]:
    """Record the shapes of a module's tensor arguments, one entry a call."""

    def watch(module: torch.nn.Module) -> list[tuple[torch.Size, ...]]:
        calls: list[tuple[torch.Size, ...]] = []
        module.register_forward_pre_hook(
            lambda _, args: calls.append(tuple(arg.shape for arg in args if isinstance(arg, torch.Tensor)))
        )
        return calls

    return watch


@pytest.fixture
def small_files():
    """Within the block no file may grow beyond a size: what happens on writing is what happens on a full disk."""

    @contextmanager
    def limit(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit
