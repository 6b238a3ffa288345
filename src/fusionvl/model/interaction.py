"""Context-aware recursive alignment decoding: latent tokens gather image evidence between decoder layers.

Paper, section 3.2. Each latent token owns a square window of the image's global map. After chosen decoder layers an
interaction layer lets every latent token, informed by the end of its question, look at its window again; the
result is added to the latent token's hidden state. Knows hidden states and windows, nothing of prompts or caches.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from fusionvl.model.configuration import FusionConfig


def pool_latents(global_map: torch.Tensor, side: int) -> torch.Tensor:
    """Initial latent tokens: the (N, 2g, 2g, D) global map max-pooled to (N, side * side, D), row by row."""
    pooled = nn.functional.adaptive_max_pool2d(global_map.permute(0, 3, 1, 2), side)
    return pooled.flatten(2).transpose(1, 2)


def pool_windows(global_map: torch.Tensor, side: int, window_size: int) -> torch.Tensor:
    """Give each latent token its private window of the global map.

    Args:
        global_map: (N, 2g, 2g, D).
        side: Latent tokens along one side.
        window_size: w, positions along one side of a window.

    Returns:
        (N, side * side, w * w, D); latent tokens and the positions in a window both row by row.

    Raises:
        ValueError: When the windows together are larger than the map: pooling would repeat positions.
    """
    if side * window_size > global_map.shape[1]:
        raise ValueError(
            f"{side * side} latent tokens with {window_size}x{window_size} windows need a global map of at least "
            f"{side * window_size} positions a side, this one has {global_map.shape[1]}: use fewer latent tokens"
        )
    pooled = nn.functional.adaptive_max_pool2d(global_map.permute(0, 3, 1, 2), side * window_size)
    windows = pooled.unflatten(3, (side, window_size)).unflatten(2, (side, window_size))  # (N, D, side, w, side, w)
    return windows.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)


@dataclass(frozen=True)
class InteractionRecord:
    """What one interaction layer did in one forward pass.

    Attributes:
        attention: (Q, L, heads, w * w) each latent token's attention over its window; sums to 1 over the window.
        update_norm: (Q, L) length of what was added to each latent token.
        latent_norm: (Q, L) length of each latent token before that.
    """

    attention: torch.Tensor
    update_norm: torch.Tensor
    latent_norm: torch.Tensor


@dataclass(frozen=True)
class InteractionContext:
    """What the interaction layers of one forward pass need; travels as a call argument, never on a module.

    Attributes:
        windows: (N, L, w * w, D) windows of the N images, L latent tokens a question.
        image_of_question: (Q,) the image each question looks at.
        latent_positions: (Q, L) positions of the latent tokens in the flattened (B * S) sequence.
        question_ends: (Q,) positions of the question ends in the flattened sequence.
        records: The caller's list, which every interaction layer appends to in their order; None: nothing is kept.
    """

    windows: torch.Tensor
    image_of_question: torch.Tensor
    latent_positions: torch.Tensor
    question_ends: torch.Tensor
    records: list[InteractionRecord] | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "InteractionContext":
        """The same context on another device; accelerate calls it where layers are spread over devices."""
        return replace(
            self,
            windows=self.windows.to(device, non_blocking=non_blocking),
            image_of_question=self.image_of_question.to(device, non_blocking=non_blocking),
            latent_positions=self.latent_positions.to(device, non_blocking=non_blocking),
            question_ends=self.question_ends.to(device, non_blocking=non_blocking),
        )


class WindowAttention(nn.Module):
    """Multi-head attention of one query per latent token over its own window, each input normalised first."""

    def __init__(self, width: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_norm = nn.LayerNorm(width, eps=eps)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_norm = nn.LayerNorm(width, eps=eps)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_norm = nn.LayerNorm(width, eps=eps)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def project_windows(self, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (N, L, heads, w * w, head width) of windows (N, L, w * w, D)."""
        return (
            self._split_heads(self.k_proj(self.k_norm(windows))),
            self._split_heads(self.v_proj(self.v_norm(windows))),
        )

    def _split_heads(self, features: torch.Tensor) -> torch.Tensor:
        return features.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)

    def forward(
        self, latents: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend from (Q, L, D) latents to keys and values (Q, L, heads, w * w, head width).

        Returns:
            What was gathered, (Q, L, D), and the weights, (Q, L, heads, 1, w * w).
        """
        queries = self.q_proj(self.q_norm(latents)).unflatten(-1, (self.num_heads, -1)).unsqueeze(-2)
        scores = queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(values.dtype)
        return self.o_proj((weights @ values).flatten(-3)), weights


class ZeroInitialisedLinear(nn.Linear):
    """A linear layer that starts at zero: transformers initialises leaf modules, so the leaf says so itself."""


class InteractionLayer(GradientCheckpointingLayer):
    """One round of evidence gathering, placed after one decoder layer."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        width, eps = config.text_config.hidden_size, config.interaction_norm_eps
        self.input_proj = nn.Linear(2 * width, width, bias=False)
        self.context_proj = nn.Linear(width, width, bias=False)
        self.attention = WindowAttention(width, config.interaction_heads, eps)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.fc1 = nn.Linear(width, width, bias=False)
        self.fc2 = ZeroInitialisedLinear(width, width, bias=False)  # step 0 behaves like the base decoder

    def forward(self, hidden_states: torch.Tensor, context: InteractionContext) -> torch.Tensor:
        """Update the latent tokens in the decoder's hidden states.

        Args:
            hidden_states: (B, S, D) output of the decoder layer.
            context: Where questions and latent tokens stand, and the images' windows.

        Returns:
            (B, S, D), equal to the input but at the latent positions.
        """
        flat = hidden_states.flatten(0, 1)
        latents = flat[context.latent_positions]  # (Q, L, D)
        question_ends = flat[context.question_ends].unsqueeze(1).expand_as(latents)
        # Windows belong to images, not to questions: project once per image, then share among its questions.
        keys, values = self.attention.project_windows(self.context_proj(context.windows))
        update, weights = self._gather_evidence(
            latents, question_ends, keys[context.image_of_question], values[context.image_of_question]
        )
        if context.records is not None:
            norms = (torch.linalg.vector_norm(vectors.detach().float(), dim=-1) for vectors in (update, latents))
            context.records.append(InteractionRecord(weights.detach().squeeze(-2), *norms))
        updated = flat.index_add(0, context.latent_positions.flatten(), update.flatten(0, 1).to(flat.dtype))
        return updated.view_as(hidden_states)

    def _gather_evidence(
        self, latents: torch.Tensor, question_ends: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        query = self.input_proj(torch.cat([question_ends, latents], dim=-1))
        gathered, weights = self.attention(query, keys, values)
        query = self.norm(query + gathered)
        return self.fc2(nn.functional.gelu(self.fc1(query))), weights
