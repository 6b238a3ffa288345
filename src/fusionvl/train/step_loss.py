"""The loss of an optimizer step: a mean over all it has seen, whatever passes and processes it is divided into.

The next-token loss averages over answer tokens, the mapping losses over guide tokens and over pictures. A mean of
means would let a short answer weigh more than a long one that shares its pass with others. Knows batches and the
model's loss terms; knows no optimizer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fusionvl.processing.batching import IGNORED_LABEL

TERMS = ("lm_loss", "text_mapping_loss", "vision_mapping_loss")
Batch = Mapping[str, Any]


def counts_of(batch: Batch) -> torch.Tensor:
    """What each of `TERMS` averages over in a batch: answer tokens, guide tokens, pictures; (3,), float64.

    A blank picture, which text alone gets so that all layers run, counts for nothing.
    """
    answers = (batch["labels"][:, 1:] != IGNORED_LABEL).sum()
    guides = pictures = 0
    if "pixel_values" in batch and not batch.get("blank_image", False):
        pictures, guides = len(batch["pixel_values"]), int(batch["guide_attention_mask"].sum())
    return torch.tensor([int(answers), guides, pictures], dtype=torch.float64)


def shares_of(counts: Sequence[torch.Tensor], totals: torch.Tensor) -> torch.Tensor:
    """The weight of each pass's terms in those of the step, (passes, 3).

    Args:
        counts: `counts_of` each pass of this process.
        totals: Their sums over all passes of all processes, (3,).
    """
    return torch.stack(list(counts)) / totals.clamp(min=1)


def combined(terms: Mapping[str, torch.Tensor], shares: torch.Tensor, mapping_weight: float) -> torch.Tensor:
    """A pass's part of the step's loss: the parts of all passes add up to it.

    Args:
        terms: The model's output.
        shares: (3,), this pass's row of `shares_of`.
        mapping_weight: The paper's lambda.
    """
    answers, text, vision = shares.tolist()
    mapping = text * terms["text_mapping_loss"] + vision * terms["vision_mapping_loss"]
    return answers * terms["lm_loss"] + mapping_weight * mapping.to(terms["lm_loss"].device)
