"""Finds a model by name or folder and loads it with its processor; every failure is one sentence.

Knows both layouts through the rooms to its left, and where and in which format a model is to answer; knows no
questions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig

from fusionvl.engine.checkpoint_files import check_configuration, check_tokenizer, check_weights
from fusionvl.engine.devices import DTYPES, choose_device, choose_dtype, free_bytes
from fusionvl.engine.quantization import BITS, bitsandbytes_config, check_bits, load_on_cpu, weight_bytes
from fusionvl.engine.sources import check_source
from fusionvl.model import FusionConfig, FusionForConditionalGeneration
from fusionvl.processing import FusionProcessor


@dataclass(frozen=True)
class Placement:
    """Where and in which format a model is to answer.

    Attributes:
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: the checkpoint's own where the device computes in it, else
            the best there is.
        device: A torch device, or `auto`: a GPU when there is one.
        quantize: `int8` or `int4` for weights in fewer bits; None: as they are.
        device_map: As in transformers, to spread a model over devices; in place of `device` and `quantize`.
        quantization_config: As in transformers; in place of `quantize`.
        attn_implementation: As in transformers.
    """

    dtype: str = "auto"
    device: str = "auto"
    quantize: str | None = None
    device_map: Any = None
    quantization_config: Any = None
    attn_implementation: str | None = None

    def __post_init__(self) -> None:
        if self.quantize is not None and (self.device_map is not None or self.quantization_config is not None):
            raise ValueError(
                "quantize is for one device and chooses how: give it, or device_map, or quantization_config"
            )
        if self.device_map is not None and self.device != "auto":
            raise ValueError("device_map says where every part lies: leave device out")


def load_config(source: str) -> FusionConfig:
    """Read a model's configuration, ours or released.

    Raises:
        ValueError: When there is no such model, or it is not a FUSION.
    """
    with in_one_sentence(source):
        if Path(source).is_dir():
            check_configuration(Path(source))
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
    if Path(source).is_dir():
        check_tokenizer(Path(source))
    with in_one_sentence(source):
        return FusionProcessor.from_pretrained(source, patch_size=patch_size)


def load_model(
    source: str, dtype: str | torch.dtype, vision_heads: int | None = None, **options: Any
) -> FusionForConditionalGeneration:
    """Load a model.

    Args:
        source: Hub name or folder.
        dtype: A dtype or its name; `auto` is the checkpoint's own.
        vision_heads: Attention heads of a released model's vision tower, when its name is not known.
        **options: As for `from_pretrained`: `device_map`, `quantization_config`, `attn_implementation`, ...

    Raises:
        ValueError: When it cannot be loaded; with the reason.
    """
    with in_one_sentence(source):
        if Path(source).is_dir():
            check_weights(Path(source))
        return FusionForConditionalGeneration.from_pretrained(
            source, dtype=dtype, vision_heads=vision_heads, **options
        )


def load_placed(source: str, placement: Placement) -> FusionForConditionalGeneration:
    """Load a model to answer with, its weights straight to where they belong.

    Raises:
        ValueError: When it cannot be loaded, the device is not there or cannot do what is asked, or its memory does
            not suffice; with the reason and what would fit.
    """
    config = load_config(source)
    device = choose_device(placement.device)
    dtype = choose_dtype(placement.dtype, config.dtype or torch.float32, device)
    passed = {"device_map": placement.device_map, "quantization_config": placement.quantization_config}
    passed["attn_implementation"] = placement.attn_implementation
    options = {name: value for name, value in passed.items() if value is not None}
    if placement.device_map is not None:
        return load_model(source, dtype, **options).eval()
    if placement.quantize is not None:
        check_bits(placement.quantize, device)
    if placement.quantization_config is None:
        _check_memory(source, config, dtype, placement.quantize, device)
    if placement.quantize is not None and device.type == "cpu":
        with in_one_sentence(source):
            if Path(source).is_dir():
                check_weights(Path(source))
            return load_on_cpu(source, config, dtype, placement.quantize, placement.attn_implementation)
    if placement.quantize is not None:
        options["quantization_config"] = bitsandbytes_config(placement.quantize, dtype)
    if device.type != "cpu":
        options["device_map"] = {"": device}
    return load_model(source, dtype, **options).eval()


@contextmanager
def in_one_sentence(source: str, what: str = "model") -> Iterator[None]:
    """Turn transformers', safetensors' and the hub's errors into one that says what to do.

    Args:
        source: Hub name or folder.
        what: It is to be loaded as.
    """
    check_source(source)
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if "mismatched_sizes" in str(error):  # transformers prints the shapes and raises something else
            reason = "tensors have other shapes than its config.json says"
        if Path(source).is_dir():
            raise ValueError(f"The folder {source} cannot be loaded as a {what}: {reason}") from error
        raise ValueError(f"There is no folder {source}, and no model of this name was found: {reason}") from error


def _check_memory(
    source: str, config: FusionConfig, dtype: torch.dtype, bits: str | None, device: torch.device
) -> None:
    """Refuse, before anything is loaded, what the device's free memory cannot hold."""
    needed, free = weight_bytes(config, dtype, bits), free_bytes(device)
    if needed <= free:
        return
    ways = {f"dtype {name}": weight_bytes(config, DTYPES[name]) for name in ("float32", "bfloat16")}
    ways |= {f"quantize {name}": weight_bytes(config, dtype, name) for name in BITS}
    fitting = [f"{way} ({_gigabytes(size)})" for way, size in ways.items() if size <= free]
    raise ValueError(
        f"{source} takes {_gigabytes(needed)} as {bits or str(dtype).removeprefix('torch.')}, {device} has "
        f"{_gigabytes(free)} free; " + (f"what would fit: {', '.join(fitting)}" if fitting else "no smaller form fits")
    )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
