"""Finds a model by name or folder and loads it with its processor; every failure is one sentence.

Knows both layouts through the rooms to its left, and where and in which format a model is to answer; knows no
questions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
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
    with _whole_weights(source):
        return FusionForConditionalGeneration.from_pretrained(
            source, dtype=dtype, vision_heads=vision_heads, **options
        )


def load_placed(
    source: str, dtype: str, device_name: str, bits: str | None = None, **passed: Any
) -> FusionForConditionalGeneration:
    """Load a model to answer with, its weights straight to where they belong.

    Args:
        source: Hub name or folder.
        dtype: As for `FusionEngine.from_pretrained`, as all that follow.
        device_name: `device` there.
        bits: `quantize` there.
        **passed: To transformers, unless None: `device_map`, `quantization_config`, `attn_implementation`.

    Raises:
        ValueError: When it cannot be loaded, the device is not there or cannot do what is asked, its memory does not
            suffice, or the settings exclude each other; with the reason and what would fit.
    """
    options = {name: value for name, value in passed.items() if value is not None}
    if bits is not None and options.keys() & {"device_map", "quantization_config"}:
        raise ValueError("quantize is for one device and chooses how: give it, or device_map, or quantization_config")
    if "device_map" in options and device_name != "auto":
        raise ValueError("device_map says where every part lies: leave device out")
    config, device = load_config(source), choose_device(device_name)
    number_format = choose_dtype(dtype, config.dtype or torch.float32, device)
    if "device_map" in options:
        return load_model(source, number_format, **options).eval()
    if bits is not None:
        check_bits(bits, device)
    if "quantization_config" not in options:
        _check_memory(source, config, number_format, bits, device)
    if bits is not None and device.type == "cpu":
        with _whole_weights(source):
            return load_on_cpu(source, config, number_format, bits, options.get("attn_implementation"))
    if bits is not None:
        options["quantization_config"] = bitsandbytes_config(bits, number_format)
    if device.type != "cpu":
        options["device_map"] = {"": device}
    return load_model(source, number_format, **options).eval()


def check_belong_together(model: FusionForConditionalGeneration, processor: FusionProcessor) -> None:
    """Compare what a model and a processor must have in common.

    Raises:
        ValueError: With the first difference.
    """
    config = model.config
    pairs = {
        "pixels of a view": (config.vision_config.image_size, processor.image_processor.side),
        "pixels of a patch": (config.vision_config.patch_size, processor.patch_size),
        "image tokens of a picture": (config.num_image_tokens, processor.num_image_tokens),
        "window size": (config.window_size, processor.window_size),
        "use of latent tokens": (config.uses_latents, processor.num_latents > 0),
    }
    for what, (of_model, of_processor) in pairs.items():
        if of_model != of_processor:
            raise ValueError(
                f"Model and processor do not belong together: {what} {of_model} in the model, {of_processor} in the "
                f"processor"
            )


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


@contextmanager
def _whole_weights(source: str) -> Iterator[None]:
    with in_one_sentence(source):
        if Path(source).is_dir():
            check_weights(Path(source))
        yield


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
