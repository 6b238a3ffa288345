"""Finds a model by name or folder and loads it with its processor; every failure is one sentence.

Knows both layouts through the rooms to its left; knows no questions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoConfig

from fusionvl.engine.sources import check_source
from fusionvl.model import FusionConfig, FusionForConditionalGeneration
from fusionvl.processing import FusionProcessor

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")


def load_config(source: str) -> FusionConfig:
    """Read a model's configuration, ours or released.

    Raises:
        ValueError: When there is no such model, or it is not a FUSION.
    """
    with in_one_sentence(source):
        config = AutoConfig.from_pretrained(source)
    if not isinstance(config, FusionConfig):
        raise ValueError(f"{source} is a {config.model_type} model, not a FUSION")
    return config


def load_processor(source: str) -> FusionProcessor:
    """Load a model's processor; a released folder without one gets the processor its configuration asks for.

    Raises:
        ValueError: When it cannot be loaded; with the reason.
    """
    patch_size = load_config(source).vision_config.patch_size
    if Path(source).is_dir() and not any((Path(source) / name).exists() for name in TOKENIZER_FILES):
        raise ValueError(f"The folder {source} holds no tokenizer (none of {', '.join(TOKENIZER_FILES)})")
    with in_one_sentence(source):
        return FusionProcessor.from_pretrained(source, patch_size=patch_size)


def load_model(
    source: str, dtype: str | torch.dtype, vision_heads: int | None = None
) -> FusionForConditionalGeneration:
    """Load a model.

    Args:
        source: Hub name or folder.
        dtype: A dtype or its name; `auto` is the checkpoint's own.
        vision_heads: Attention heads of a released model's vision tower, when its name is not known.

    Raises:
        ValueError: When it cannot be loaded; with the reason.
    """
    with in_one_sentence(source):
        return FusionForConditionalGeneration.from_pretrained(source, dtype=dtype, vision_heads=vision_heads)


@contextmanager
def in_one_sentence(source: str) -> Iterator[None]:
    """Turn transformers' and the hub's errors into one that says what to do."""
    check_source(source)
    try:
        yield
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        if Path(source).is_dir():
            raise ValueError(f"The folder {source} cannot be loaded as a model: {reason}") from error
        raise ValueError(f"There is no folder {source}, and no model of this name was found: {reason}") from error
