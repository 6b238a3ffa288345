"""Attention of the vision encoder: torch's, with a way around its kernel where that is slow in bfloat16.

On CPUs that multiply matrices of bfloat16 in hardware (AMX), torch's fused kernel is the fastest way forward; backward
it takes longer than plain matrix products do. On other x86 CPUs that kernel takes less time in float32, conversions
included, and is more exact. Which one runs is a rule and not a timing, so that two runs on one machine compute the
same; the figures are in docs/performance.md. Knows queries, keys, values and an additive bias; knows no layers, and
leaves causal attention to torch, whose kernel skips half of the work.

Shapes: N images, H heads, T queries, S keys, c head width.
"""

import functools
import platform
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

MAX_WEIGHTS = 2**21  # attention weights held at once in the backward pass: they stay near the cache
MANY_QUERIES = 128  # from here on float32 pays for the conversion of keys and values; in training it always does


def attend(
    module: nn.Module,
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    scaling: float,
    dropout: float,
    is_causal: bool,
) -> tuple[torch.Tensor, None]:
    """`sdpa` of transformers' attention interface; in bfloat16 on a CPU as its kind computes it fastest.

    Args:
        module: The attention module.
        queries: (N, H, T, c).
        keys: (N, H, S, c).
        values: (N, H, S, c).
        bias: Added to the scores, broadcast to (N, 1, T, S), or None; each query must have a key to look at.
        scaling: Of the scores.
        dropout: Of the weights; with it everything is torch's.
        is_causal: Likewise.

    Returns:
        (N, T, H, c), and no weights.
    """
    settings: dict[str, Any] = {"scaling": scaling, "dropout": dropout, "is_causal": is_causal}
    if is_causal or dropout or not queries.is_cpu or queries.dtype != torch.bfloat16:
        return sdpa_attention_forward(module, queries, keys, values, bias, **settings)
    learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (queries, keys, values))
    if learns and _has_amx():
        return _Attention.apply(queries, keys, values, bias, scaling).transpose(1, 2).contiguous(), None
    if (learns or queries.shape[2] >= MANY_QUERIES) and _is_faster_in_float32():
        bias = None if bias is None else bias.float()
        with torch.autocast("cpu", enabled=False):  # which would make them narrow again
            wide = (tensor.float() for tensor in (queries, keys, values))
            output, _ = sdpa_attention_forward(module, *wide, bias, **settings)
        return output.to(queries.dtype), None
    return sdpa_attention_forward(module, queries, keys, values, bias, **settings)


ENCODER_ATTENTION = AttentionInterface()
"""What `attn_implementation` names, in the encoder alone."""
ENCODER_ATTENTION["sdpa"] = attend


@functools.cache
def _has_amx() -> bool:
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


@functools.cache
def _is_faster_in_float32() -> bool:
    return platform.machine() in ("x86_64", "AMD64") and not _has_amx()


class _Attention(torch.autograd.Function):
    """Forward by torch's kernel, which keeps no weights; backward a few heads at a time, by matrix products."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        bias: torch.Tensor | None,
        scaling: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(queries, keys, values, bias)
        ctx.scaling = scaling
        return nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=scaling)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        queries, keys, values, bias = ctx.saved_tensors
        flat = [tensor.flatten(0, 1) for tensor in (queries * ctx.scaling, keys, values, gradient)]  # (N * H, T, c)
        if bias is not None:
            flat.append(bias.to(queries.dtype).expand(*queries.shape[:2], -1, -1).flatten(0, 1))
        heads = max(1, MAX_WEIGHTS // (queries.shape[2] * keys.shape[2]))
        with torch.autocast("cpu", enabled=False):
            parts = [_gradients(*part) for part in zip(*(tensor.split(heads) for tensor in flat), strict=True)]
        of_queries, of_keys, of_values = (
            torch.cat(part).unflatten(0, queries.shape[:2]) for part in zip(*parts, strict=True)
        )
        return of_queries.mul_(ctx.scaling), of_keys, of_values, None, None


def _gradients(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    gradient: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of scaled queries, keys and values of some heads, each of its tensor's shape."""
    scores = queries @ keys.mT
    if bias is not None:
        scores += bias
    weights = torch.softmax(scores, -1, out=scores)
    # As autograd does for a softmax; autograd itself would keep and clear more tensors of this size.
    of_scores = torch._softmax_backward_data(gradient @ values.mT, weights, -1, weights.dtype)
    return of_scores @ keys, of_scores.mT @ queries, weights.mT @ gradient
