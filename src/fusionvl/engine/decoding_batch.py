"""One decoding step for all running answers: a batched forward over rows of different lengths.

Knows the decoder's masks and the slot cache; knows no requests and no sampling.
"""

from typing import Any

import torch
from transformers import Cache

from fusionvl.engine.slot_cache import SlotCache
from fusionvl.model import FusionForConditionalGeneration

FULL, SLIDING = "full_attention", "sliding_attention"


class DecodingBatch:
    """The running rows of one model.

    Args:
        model: In evaluation mode.

    Raises:
        ValueError: When the decoder's attention cannot be masked row by row.
    """

    def __init__(self, model: FusionForConditionalGeneration) -> None:
        attention = model.model.language_model.config._attn_implementation
        if attention not in ("sdpa", "eager"):
            raise ValueError(
                f"Continuous batching needs an attention that takes a mask, not {attention!r}: load the model with "
                f"sdpa or eager attention"
            )
        self._model = model
        self._windows = _attention_windows(model.config.text_config)
        self._cache = SlotCache(model.config.text_config.num_hidden_layers)

    def __len__(self) -> int:
        return len(self._cache.lengths)

    @property
    def num_bytes(self) -> int:
        """Memory of the keys and values held."""
        return self._cache.num_bytes

    def join(self, prompt: Cache) -> None:
        """Add a prompt's cache as the last row."""
        self._cache.join(prompt)

    def leave(self, row: int) -> None:
        """Remove a row; the last row takes its index."""
        self._cache.leave(row)

    def clear(self) -> None:
        """Remove all rows."""
        self._cache.clear()

    def step(self, tokens: list[int]) -> torch.Tensor:
        """Append one token to each row and return the logits (B, V) of the next ones."""
        device = self._model.device
        positions = self._cache.begin_step(device)
        output = self._model(
            input_ids=torch.tensor(tokens, device=device)[:, None],
            attention_mask=self._masks(positions),
            position_ids=positions[:, None],
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache.end_step()
        return output.logits[:, -1]

    def _masks(self, positions: torch.Tensor) -> Any:
        """Additive masks (B, 1, 1, columns): one, or one for each kind of layer."""
        columns = torch.arange(self._cache.step_places[2], device=positions.device)
        hidden = columns > positions[:, None]
        masks = {}
        for kind, window in self._windows.items():
            hidden_here = hidden if window is None else hidden | (columns <= positions[:, None] - window)
            bias = torch.zeros(hidden.shape, dtype=self._model.dtype, device=positions.device)
            masks[kind] = bias.masked_fill(hidden_here, torch.finfo(bias.dtype).min)[:, None, None]
        return masks if len(masks) > 1 else next(iter(masks.values()))


def _attention_windows(config: Any) -> dict[str, int | None]:
    """How many tokens back each kind of decoder layer looks; None: all."""
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or [FULL if window is None else SLIDING])
    if unknown := kinds - {FULL, SLIDING}:
        raise ValueError(
            f"Continuous batching knows full and sliding attention, the decoder ({config.model_type}) also has "
            f"{', '.join(sorted(unknown))}: answer one request at a time with FusionEngine.answer"
        )
    return {kind: None if kind == FULL else window for kind in sorted(kinds)}


def longest_sequence(config: Any) -> int:
    """Tokens of prompt and answer that a row may have without changing the rows beside it.

    Some rotary embeddings change for the whole batch as soon as one row is longer than the length the decoder was
    first trained at; rows stay below it.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    context = config.max_position_embeddings
    if rope.get("rope_type") not in ("longrope", "dynamic"):
        return context
    return min(context, rope.get("original_max_position_embeddings") or context)
