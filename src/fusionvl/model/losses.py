"""Training objectives as pure functions: next-token loss and the dual-supervised mapping loss (paper, section 3.3).

Knows tensors only; which embeddings are compared is decided in `modeling.py`.
"""

import math

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

IGNORED = -100
MAX_LOGITS = 2**25  # held at once: enough for long matrix products, little beside a large decoder's activations


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
    # Both may lie on devices of their own when a model is spread over several.
    distance = 1.0 - nn.functional.cosine_similarity(mapped.float(), target.to(mapped.device).float(), dim=-1)
    if mask is None:
        return distance.mean()
    # A sum over a masked copy, not boolean indexing: NaN-safe for padded rows and free of a device synchronisation.
    real = mask.to(mapped.device).bool()
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


def next_token_loss(
    head: nn.Module, hidden_states: torch.Tensor, targets: torch.Tensor, vocabulary: int
) -> torch.Tensor:
    """Mean cross entropy of the head's logits, in float32, without ever holding all logits of a large vocabulary.

    The positions go through the head in chunks of at most `MAX_LOGITS` logits; a chunk's logits are made again in the
    backward pass. Where one chunk holds all, as with a small vocabulary, nothing is made twice.

    Args:
        head: (L, D) -> (L, V). Always called as a module: an adapter, a quantised or a sharded head works, too.
        hidden_states: (L, D) at the positions that predict a label.
        targets: (L,).
        vocabulary: V.
    """
    # torch's linear_cross_entropy takes a bare weight, past adapters and hooks, and returns the loss in the weight's
    # own precision; one more product with the head for the labelled positions alone is a small price.
    num_chunks = math.ceil(len(targets) / max(1, MAX_LOGITS // vocabulary))
    if num_chunks == 1:
        logits = head(hidden_states).float()  # the head may lie on another device than the decoder
        return nn.functional.cross_entropy(logits, targets.to(logits.device))
    sums = [
        checkpoint(_summed_loss, head, chunk, chunk_targets, use_reentrant=False)
        for chunk, chunk_targets in zip(hidden_states.chunk(num_chunks), targets.chunk(num_chunks), strict=True)
    ]
    return torch.stack(sums).sum() / len(targets)


def _summed_loss(head: nn.Module, hidden_states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = head(hidden_states).float()
    return nn.functional.cross_entropy(logits, targets.to(logits.device), reduction="sum")
