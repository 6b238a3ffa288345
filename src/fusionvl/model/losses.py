"""Training objectives as pure functions: next-token loss and the dual-supervised mapping loss (paper, section 3.3).

Knows tensors only; which embeddings are compared is decided in `modeling.py`.
"""

import torch
from torch import nn

IGNORED = -100


def cosine_mapping_loss(
    mapped: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None, detach_target: bool
) -> torch.Tensor:
    """Mean of `1 - cos(mapped, target)` over all real positions of the batch.

    Args:
        mapped: (N, T, C) features after their way through the other space.
        target: (N, T, C) embeddings they should equal.
        mask: (N, T), non-zero where a position is real, or None when all are.
        detach_target: Whether the target is a constant for the gradient.

    Returns:
        A float32 scalar; 0 when no position is real.
    """
    if detach_target:
        target = target.detach()
    distance = 1.0 - nn.functional.cosine_similarity(mapped.float(), target.float(), dim=-1)
    if mask is None:
        return distance.mean()
    # A sum over a masked copy, not boolean indexing: NaN-safe for padded rows and free of a device synchronisation.
    real = mask.bool()
    return distance.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


def select_labelled(hidden_states: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pick the positions that predict a label, so that logits are made for these alone.

    Args:
        hidden_states: (B, S, D) decoder output.
        labels: (B, S), `IGNORED` where nothing is to be predicted; position t is predicted from t - 1.

    Returns:
        The (L, D) hidden states and their (L,) targets.

    Raises:
        ValueError: When no position carries a label.
    """
    targets = labels[:, 1:]
    labelled = targets != IGNORED
    if not bool(labelled.any()):
        raise ValueError("No position carries a label: every answer was cut off or masked")
    return hidden_states[:, :-1][labelled], targets[labelled]


def next_token_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of (L, V) logits against (L,) targets, in float32."""
    return nn.functional.cross_entropy(logits.float(), targets)
