"""Loads a model with weights in fewer bits: `int8` or `int4`.

On a CPU tensor by tensor: each is read, narrowed and let go, so that no more than the narrow model and one tensor are
ever held. On a GPU by bitsandbytes, through transformers. The decoder and the interaction layers take the bits asked
for; the encoder and the mapping layers, a tenth of the weights, take 8 at least; embeddings and the output head stay
as they are. Knows names of a model's parts; knows no questions.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import nn
from transformers import BitsAndBytesConfig, GenerationConfig, PreTrainedConfig
from transformers.utils import GENERATION_CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from fusionvl.engine.devices import tight_memory
from fusionvl.engine.quantized_layers import Int8Linear, fits_int4, fits_int8, int4_linear
from fusionvl.model import FusionConfig, FusionForConditionalGeneration
from fusionvl.model.released import is_released, our_key, require_all_keys
from fusionvl.model.vision_encoder import GuidedVisionEncoder

BITS = ("int8", "int4")
_BYTES = {"int8": 1.0, "int4": 0.5 + 2 / 64}  # of a weight, scales included

_UNUSED = re.compile("|".join(GuidedVisionEncoder._keys_to_ignore_on_load_unexpected))
_DECODER = re.compile(r"model\.(language_model\.layers|interaction_layers)\.")
_ENCODER = re.compile(r"model\.(vision_tower|vision_to_text|text_to_vision)\.")


def check_bits(bits: str, device: torch.device) -> None:
    """Refuse what a device cannot do.

    Raises:
        ValueError: Unknown bits, a device without such products, or bitsandbytes is missing.
    """
    if bits not in BITS:
        raise ValueError(f"{bits!r} is no quantisation of ours: choose {' or '.join(BITS)}")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"Weights in {bits} are for a CPU or a CUDA device, not for {device}: leave quantize out")
    if bits == "int4" or device.type == "cuda":
        try:
            import bitsandbytes  # noqa: F401 - whether it is there
        except ModuleNotFoundError as error:
            raise ValueError(f"{bits} on {device} needs bitsandbytes: pip install 'fusionvl[quantize]'") from error


def weight_bytes(config: FusionConfig, dtype: torch.dtype, bits: str | None = None) -> int:
    """Memory that a model's weights take; nothing is loaded."""
    with torch.device("meta"):
        model = FusionForConditionalGeneration(config)
    narrow = {} if bits is None else {f"{name}.weight": _BYTES[kind] for name, kind in layer_bits(model, bits).items()}
    return int(sum(weight.numel() * narrow.get(name, dtype.itemsize) for name, weight in model.named_parameters()))


def bits_of(model: nn.Module) -> str | None:
    """The fewest bits that a loaded model's weights were narrowed to; None: they are as they were."""
    kinds = {type(module).__name__ for module in model.modules()}
    return "int4" if "Linear4bit" in kinds else "int8" if kinds & {"Int8Linear", "Linear8bitLt"} else None


def layer_bits(model: nn.Module, bits: str) -> dict[str, str]:
    """The bits of every linear layer that takes fewer, by its name."""
    chosen: dict[str, str] = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Linear):
            continue
        if bits == "int4" and _DECODER.match(name) and fits_int4(layer):
            chosen[name] = "int4"
        elif (_DECODER.match(name) or _ENCODER.match(name)) and fits_int8(layer):
            chosen[name] = "int8"
    return chosen


def bitsandbytes_config(bits: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    """How transformers loads a model in fewer bits on a GPU."""
    skipped = ["lm_head", "vision_tower", "vision_to_text", "text_to_vision"]
    if bits == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skipped,
    )


def load_on_cpu(
    source: str, config: FusionConfig, dtype: torch.dtype, bits: str, attention: str | None = None
) -> FusionForConditionalGeneration:
    """Load a model of ours or a released one in fewer bits, ready to answer.

    Args:
        source: Hub name or folder.
        config: Of the model.
        dtype: Of activations and of what stays wide.
        bits: `int8` or `int4`.
        attention: As `attn_implementation` of transformers.

    Raises:
        ValueError: When a tensor is missing or unexpected (named).
    """
    with init_empty_weights():
        model = FusionForConditionalGeneration(config)
    if attention is not None:
        model.set_attn_implementation(attention)
    with tight_memory():
        unexpected = _fill(model, _tensors(source), layer_bits(model, bits), dtype)
    model.tie_weights()
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    require_all_keys(source, model, missing, unexpected)
    if cached_file(source, GENERATION_CONFIG_NAME, _raise_exceptions_for_missing_entries=False) is not None:
        model.generation_config = GenerationConfig.from_pretrained(source)
    return model.eval()


def _fill(
    model: nn.Module, tensors: Iterator[tuple[str, torch.Tensor]], narrow: dict[str, str], dtype: torch.dtype
) -> list[str]:
    """Put every tensor in its place, narrowed where it is to be; return the names that have none.

    Raises:
        ValueError: A tensor has another shape than its place.
    """
    shapes, unexpected = {name: parameter.shape for name, parameter in model.named_parameters()}, list[str]()
    for name, tensor in tensors:
        layer, _, kind = name.rpartition(".")
        if name not in shapes:
            if not _UNUSED.search(name):
                unexpected.append(name)
        elif tensor.shape != shapes[name]:
            raise ValueError(
                f"{name} is {tuple(tensor.shape)} in the checkpoint and {tuple(shapes[name])} in the model: "
                f"tensors have other shapes than its config.json says"
            )
        elif layer in narrow and kind == "weight":
            linear = int4_linear(tensor, dtype) if narrow[layer] == "int4" else Int8Linear(tensor, dtype)
            linear.bias = model.get_submodule(layer).bias  # which may have come before or come yet
            model.set_submodule(layer, linear)
        else:
            setattr(model.get_submodule(layer), kind, nn.Parameter(tensor.to(dtype), requires_grad=False))
    return unexpected


def _tensors(source: str) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of a checkpoint under our names, one after the other, none held by a mapped file."""
    raw_config, _ = PreTrainedConfig.get_config_dict(source)
    rename = our_key if is_released(raw_config) else str
    index = cached_file(source, SAFE_WEIGHTS_INDEX_NAME, _raise_exceptions_for_missing_entries=False)
    names = {SAFE_WEIGHTS_NAME}
    if index is not None:
        names = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
    for name in sorted(names):
        with safe_open(cached_file(source, name), "pt", backend="pread") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - a file, not a mapping
                yield rename(key), tensors.get_tensor(key)
