"""How well a stage uses its machine: tokens a second, share of the matmul peak, share of padding, peak memory.

Operations are counted by formula: a weight takes part in two operations a token on the way forward, two on the way
back to what is before it, and two for its own gradient; attention is counted in full, causal or not; what is computed
again under checkpointing is not counted. Knows shapes and clocks; knows no data.
"""

import resource
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fusionvl.model import FusionConfig, FusionForConditionalGeneration
from fusionvl.model.configuration import VIEWS_PER_IMAGE
from fusionvl.model.token_layout import LATENT
from fusionvl.train.freezing import num_weights, part_of
from fusionvl.train.processes import summed, world_size

_ORDER = ("vision_tower", "mapping", "interaction_layers", "decoder")
_PEAK_SECONDS = 0.2


class Throughput:
    """Counts what is computed between two rows of the log.

    Args:
        model: Its parts frozen or not, as they are trained.
        device: Of this process.
        dtype: Of its matrix products.
    """

    def __init__(self, model: FusionForConditionalGeneration, device: torch.device, dtype: torch.dtype) -> None:
        self._model = model
        self._device = device
        self._peak = world_size() * matmul_peak(device, dtype)
        self._per_token = operations_per_token(model)
        self._start()

    def _start(self) -> None:
        self._began = time.perf_counter()
        self._counted = torch.zeros(3, dtype=torch.float64)  # real tokens, all tokens, operations

    def add(self, batch: Mapping[str, Any]) -> None:
        """Count a forward and backward pass of this process."""
        mask = batch["attention_mask"]
        operations = operations_of(batch, self._model.config, self._per_token)
        self._counted += torch.tensor([int(mask.sum()), mask.numel(), operations], dtype=torch.float64)

    def report(self) -> dict[str, float]:
        """What all processes did since the last report; every process must call."""
        seconds = time.perf_counter() - self._began
        real, computed, operations = summed(self._counted.to(self._device)).tolist()
        self._start()
        return {
            "tokens_per_second": real / seconds,
            "matmul_share": operations / seconds / self._peak,
            "padding": 1 - real / computed,
        }


def operations_per_token(model: nn.Module) -> dict[str, int]:
    """Operations of each part for one of its tokens, forward and backward, attention scores left out."""
    weights, trained = dict.fromkeys(_ORDER, 0), dict.fromkeys(_ORDER, False)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "embed_tokens" not in name and "position_embedding" not in name:
            weights[part_of(name)] += num_weights(parameter)
        trained[part_of(name)] |= parameter.requires_grad
    return {
        part: weights[part] * (2 + 2 * any(trained[before] for before in _ORDER[:index]) + 2 * trained[part])
        for index, part in enumerate(_ORDER)
    }


def operations_of(batch: Mapping[str, Any], config: FusionConfig, per_token: Mapping[str, int]) -> float:
    """Operations of one batch: rows of the decoder, and every view of its pictures.

    Args:
        batch: As the model takes it.
        config: The model's.
        per_token: From `operations_per_token`.
    """
    rows, length = batch["input_ids"].shape
    patches = config.patch_grid**2
    views = VIEWS_PER_IMAGE * len(batch["pixel_values"]) if "pixel_values" in batch else 0
    latents = int((batch["mm_token_type_ids"] == LATENT).sum())
    decoder_attention = 12 * config.text_config.num_hidden_layers * config.text_config.hidden_size
    encoder_attention = 12 * config.num_vision_layers * config.vision_config.hidden_size
    return (
        per_token["decoder"] * rows * length
        + per_token["interaction_layers"] * latents
        + (per_token["vision_tower"] + per_token["mapping"]) * views * patches
        + decoder_attention * rows * length**2
        + encoder_attention * views * patches**2
    )


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of large matrix products on a device, measured for a moment."""
    side = 8192 if device.type == "cuda" else 1024
    left, right = torch.randn(2, side, side, device=device).to(dtype).unbind()
    best = float("inf")
    ends = time.perf_counter() + _PEAK_SECONDS
    while best == float("inf") or time.perf_counter() < ends:
        began = time.perf_counter()
        product = nn.functional.linear(left, right)
        float(product[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def peak_bytes(device: torch.device) -> int:
    """The most memory held so far: by the allocator of a GPU, else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
