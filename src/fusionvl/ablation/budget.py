"""Equal budgets: how many parameters a variant uses, and the decoder made wider where a switch takes some away.

Counts on the meta device: no weight is made.
"""

from dataclasses import replace

import torch

from fusionvl.model import FusionForConditionalGeneration
from fusionvl.train.config import ModelFromScratch
from fusionvl.train.scratch import build_from_scratch

_STEP = 8  # widths that are multiples of this are as fast as their neighbours


def used_parameters(model: FusionForConditionalGeneration) -> int:
    """Parameters that the answers or the loss depend on.

    Without guidance and mapping loss nothing goes through `text_to_vision`: it is there and never trained.
    """
    config = model.config
    total = sum(parameter.numel() for parameter in model.parameters())
    if config.use_guidance or config.mapping_loss_weight:
        return total
    return total - sum(parameter.numel() for parameter in model.model.text_to_vision.parameters())


def widened(spec: ModelFromScratch, like: ModelFromScratch) -> ModelFromScratch:
    """Widen the decoder's feed-forward layers until a model has about as many parameters as another.

    Args:
        spec: The model to widen; one that is large enough stays as it is.
        like: The model whose parameters it should have.

    Returns:
        The geometry with another `intermediate_size`, within half a step of the other's parameters.
    """
    missing = count_parameters(like) - count_parameters(spec)
    if missing <= 0:
        return spec
    of_a_step = count_parameters(_wider(spec, _STEP)) - count_parameters(spec)
    return _wider(spec, round(missing / of_a_step) * _STEP)


def _wider(spec: ModelFromScratch, units: int) -> ModelFromScratch:
    return replace(spec, decoder={**spec.decoder, "intermediate_size": spec.decoder["intermediate_size"] + units})


def count_parameters(spec: ModelFromScratch) -> int:
    """Parameters in use, with a tokenizer of bytes alone: a vocabulary is the same in every variant."""
    with torch.device("meta"):
        model, _ = build_from_scratch(spec, [], num_latents=1, seed=0)
    return used_parameters(model)
