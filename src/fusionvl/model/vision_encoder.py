"""Text-guided unified vision encoding: a SigLIP encoder in which the question takes part.

Paper, section 3.1. Guide tokens (the question, mapped into the vision width) join the patch tokens: in the first half
of the layers under a restriction, in the second half in full joint attention. Knows pixels and guide embeddings;
knows nothing of tokenizers, decoders or the mapping MLPs around it.

Shapes: N images, P patches of a view, G guide tokens, d vision width, H heads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import nn
from transformers import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import (
    SiglipEncoderLayer,
    SiglipPreTrainedModel,
    SiglipVisionEmbeddings,
    eager_attention_forward,
)

from fusionvl.model.configuration import EarlyGuidance
from fusionvl.model.encoder_attention import ENCODER_ATTENTION

KeysValues = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class PatchStates:
    """The first half of the encoder for the patches alone, shared by every question about the same image.

    Exists with `masked` early guidance only, where patches do not see the guide.

    Attributes:
        embeddings: (N, P, d) patch embeddings, h0.
        hidden_states: (N, P, d) output of the first half.
        layer_sum: (N, P, d) float32 sum of h0 .. h(half - 1).
        keys_values: For each layer of the first half, keys and values (N, H, P, d / H) of the patches.
    """

    embeddings: torch.Tensor
    hidden_states: torch.Tensor
    layer_sum: torch.Tensor
    keys_values: list[KeysValues]

    @property
    def num_bytes(self) -> int:
        """Memory held, for caches that are bounded in bytes."""
        tensors = [self.embeddings, self.hidden_states, self.layer_sum, *(t for kv in self.keys_values for t in kv)]
        return sum(tensor.nbytes for tensor in tensors)

    def repeat_interleave(self, repeats: int) -> "PatchStates":
        """Repeat each image, for several sequences a row."""
        return self._map(lambda tensor: tensor.repeat_interleave(repeats, 0))

    def select(self, images: Sequence[int]) -> "PatchStates":
        """The states of the images at the given indices, which may repeat."""
        return self._map(lambda tensor: tensor[list(images)])

    @staticmethod
    def cat(states: Sequence["PatchStates"]) -> "PatchStates":
        """Put the images of several states into one batch."""
        return PatchStates(
            torch.cat([state.embeddings for state in states]),
            torch.cat([state.hidden_states for state in states]),
            torch.cat([state.layer_sum for state in states]),
            [
                (torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer]))
                for layer in zip(*(state.keys_values for state in states), strict=True)
            ],
        )

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "PatchStates":
        return PatchStates(
            change(self.embeddings),
            change(self.hidden_states),
            change(self.layer_sum),
            [(change(keys), change(values)) for keys, values in self.keys_values],
        )


@dataclass(frozen=True)
class EncodedView:
    """One encoded view of each image.

    Attributes:
        patch_embeddings: (N, P, d), h0, the target of the vision mapping loss.
        patches: (N, P, 3d) features of the patches.
        guide: (N, G, 3d) features of the guide tokens; G is 0 without a guide.
    """

    patch_embeddings: torch.Tensor
    patches: torch.Tensor
    guide: torch.Tensor


class GuidedEncoderLayer(SiglipEncoderLayer):
    """A SigLIP layer, parameters unchanged, that can also run patches and guide as two restricted streams.

    A key bias is (N, 1, 1, keys): 0 for a real key, the dtype's minimum for guide padding, or None when all are real.
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        key_bias: torch.Tensor | None = None,
        guide: torch.Tensor | None = None,
        early_guidance: EarlyGuidance | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Run the layer in full joint attention (no `guide`) or on two restricted streams.

        Args:
            hidden_states: (N, T, d) all tokens, or (N, P, d) the patches when `guide` is apart.
            key_bias: Over T keys, or over the P + G keys of both streams.
            guide: (N, G, d), or None.
            early_guidance: How the streams are restricted; needed with `guide`.

        Returns:
            The new hidden states and the new guide (None without one).
        """
        queries, keys, values = self._project(hidden_states)
        if guide is None:
            return self._finish(hidden_states, self._attend(queries, keys, values, key_bias)), None
        if early_guidance == "masked":
            patches = self._finish(hidden_states, self._attend(queries, keys, values, None))
            return patches, self.advance_guide(guide, (keys, values), key_bias)
        _, guide_keys, guide_values = self._project(guide)
        keys, values = torch.cat([keys, guide_keys], dim=2), torch.cat([values, guide_values], dim=2)
        patches = self._finish(hidden_states, self._attend(queries, keys, values, key_bias))
        # Reference, section 3: the released weights were trained with a flat softmax in the guide's early rows. The
        # authors' code adds the dtype's minimum to every score, so autograd hands their queries and keys a gradient
        # although the output does not depend on them. It is no gradient of the loss, and is not repeated here.
        return patches, self._finish(guide, _mean_of_real_values(values, key_bias))

    def advance_patches(self, patches: torch.Tensor) -> tuple[torch.Tensor, KeysValues]:
        """Run the patches alone and keep the keys and values that guide tokens attend to later."""
        queries, keys, values = self._project(patches)
        return self._finish(patches, self._attend(queries, keys, values, None)), (keys, values)

    def advance_guide(
        self, guide: torch.Tensor, patch_keys_values: KeysValues, key_bias: torch.Tensor | None
    ) -> torch.Tensor:
        """Run the guide alone; it attends to known keys and values of the patches and to itself."""
        queries, keys, values = self._project(guide)
        keys = torch.cat([patch_keys_values[0], keys], dim=2)
        values = torch.cat([patch_keys_values[1], values], dim=2)
        return self._finish(guide, self._attend(queries, keys, values, key_bias))

    def _project(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, each (N, H, T, d / H)."""
        attention, normed = self.self_attn, self.layer_norm1(hidden_states)
        heads = (*normed.shape[:-1], attention.num_heads, attention.head_dim)
        return (
            attention.q_proj(normed).view(heads).transpose(1, 2),
            attention.k_proj(normed).view(heads).transpose(1, 2),
            attention.v_proj(normed).view(heads).transpose(1, 2),
        )

    def _attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, key_bias: torch.Tensor | None
    ) -> torch.Tensor:
        """Attention output (N, T, H, d / H) before the output projection."""
        attention = self.self_attn
        interface = ENCODER_ATTENTION.get_interface(attention.config._attn_implementation, eager_attention_forward)
        dropout = attention.dropout if self.training else 0.0
        output, _ = interface(
            attention, queries, keys, values, key_bias, is_causal=False, scaling=attention.scale, dropout=dropout
        )
        return output

    def _finish(self, hidden_states: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        hidden_states = hidden_states + self.self_attn.out_proj(attended.flatten(2))
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))


def _mean_of_real_values(values: torch.Tensor, key_bias: torch.Tensor | None) -> torch.Tensor:
    """Mean of values (N, H, T, d / H) over the real positions, as (N, 1, H, d / H): the same for every row."""
    if key_bias is None:
        return values.mean(dim=2, keepdim=True).transpose(1, 2)
    real = (key_bias == 0).to(values.dtype).transpose(2, 3)  # (N, 1, T, 1)
    return ((values * real).sum(dim=2, keepdim=True) / real.sum(dim=2, keepdim=True)).transpose(1, 2)


class GuidedVisionEncoder(SiglipPreTrainedModel):
    """SigLIP without its last layer, head and post-layernorm, with optional guide tokens.

    The features of a token are its last hidden state and the means of its hidden states over the first and over the
    second half of the layers, side by side.
    """

    config: SiglipVisionConfig
    main_input_name = "pixel_values"
    _no_split_modules = ("SiglipVisionEmbeddings", "GuidedEncoderLayer")
    _supports_flash_attn = False  # guide padding needs a key bias, which flash attention does not take
    _supports_flex_attn = False
    _can_record_outputs: ClassVar[dict[str, type]] = {}  # its hidden states are features, not outputs
    # Parts of a whole SigLIP that FUSION does not use
    _keys_to_ignore_on_load_unexpected = (r"vision_tower\.(vision_tower\.vision_model\.)?(post_layernorm|head)\.",)

    def __init__(self, config: SiglipVisionConfig, early_guidance: EarlyGuidance) -> None:
        super().__init__(config)
        self.early_guidance = early_guidance
        self.embeddings = SiglipVisionEmbeddings(config)
        self.layers = nn.ModuleList([GuidedEncoderLayer(config) for _ in range(config.num_hidden_layers - 1)])
        self.half = len(self.layers) // 2
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor | None,
        guide: torch.Tensor | None = None,
        guide_attention_mask: torch.Tensor | None = None,
        patch_states: PatchStates | None = None,
    ) -> EncodedView:
        """Encode one view of each image.

        Args:
            pixel_values: (N, 3, H, W), normalised or uint8; not read when `patch_states` stand for them.
            guide: (N, G, d) guide embeddings, or None to encode without guidance.
            guide_attention_mask: (N, G), 1 where a guide token is real; None: all are.
            patch_states: The patches' first half, from `encode_patches`.

        Returns:
            The features of patches and guide.
        """
        if patch_states is None:
            patches = self.embeddings(_normalized(pixel_values))
        else:
            patches = patch_states.embeddings
        num_patches = patches.shape[1]
        if guide is not None and guide.shape[1] == 0:
            guide = None
        key_bias = None if guide is None else _key_bias(guide_attention_mask, num_patches, patches.dtype)
        if patch_states is not None:
            hidden_states, first_sum = self._first_half_from_states(patch_states, guide, key_bias)
        elif guide is not None:
            hidden_states, first_sum = self._first_half_guided(patches, guide, key_bias)
        else:
            hidden_states, first_sum = self._first_half(patches)
        features = self._second_half(hidden_states, first_sum, key_bias)
        return EncodedView(patches, features[:, :num_patches], features[:, num_patches:])

    def encode_patches(self, pixel_values: torch.Tensor) -> PatchStates:
        """Run the first half on (N, 3, H, W) views without guide, for reuse by many questions.

        Raises:
            ValueError: With `released` early guidance, where patches depend on the question from the first layer on.
        """
        if self.early_guidance != "masked":
            raise ValueError(
                f"Patch states depend on the question with early_guidance={self.early_guidance!r}; "
                f"only 'masked' lets questions share them"
            )
        embeddings = self.embeddings(_normalized(pixel_values))
        hidden_states, layer_sum = embeddings, torch.zeros_like(embeddings, dtype=torch.float32)
        keys_values = []
        for layer in self._early_layers:
            layer_sum = layer_sum + hidden_states
            hidden_states, layer_keys_values = layer.advance_patches(hidden_states)
            keys_values.append(layer_keys_values)
        return PatchStates(embeddings, hidden_states, layer_sum, keys_values)

    @property
    def _early_layers(self) -> list[GuidedEncoderLayer]:
        return cast(list[GuidedEncoderLayer], list(self.layers[: self.half]))

    def _first_half(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        layer_sum = torch.zeros_like(hidden_states, dtype=torch.float32)
        for layer in self._early_layers:
            layer_sum = layer_sum + hidden_states
            hidden_states, _ = layer(hidden_states)
        return hidden_states, layer_sum

    def _first_half_guided(
        self, patches: torch.Tensor, guide: torch.Tensor, key_bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        patch_sum = torch.zeros_like(patches, dtype=torch.float32)
        guide_sum = torch.zeros_like(guide, dtype=torch.float32)
        for layer in self._early_layers:
            patch_sum, guide_sum = patch_sum + patches, guide_sum + guide
            patches, guide = layer(patches, key_bias, guide, self.early_guidance)
        return torch.cat([patches, guide], dim=1), torch.cat([patch_sum, guide_sum], dim=1)

    def _first_half_from_states(
        self, states: PatchStates, guide: torch.Tensor | None, key_bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if guide is None:
            return states.hidden_states, states.layer_sum
        guide_sum = torch.zeros_like(guide, dtype=torch.float32)
        for layer, keys_values in zip(self._early_layers, states.keys_values, strict=True):
            guide_sum = guide_sum + guide
            guide = layer.advance_guide(guide, keys_values, key_bias)
        return torch.cat([states.hidden_states, guide], dim=1), torch.cat([states.layer_sum, guide_sum], dim=1)

    def _second_half(
        self, hidden_states: torch.Tensor, first_sum: torch.Tensor, key_bias: torch.Tensor | None
    ) -> torch.Tensor:
        second_sum = torch.zeros_like(hidden_states, dtype=torch.float32)
        for index, layer in enumerate(self.layers[self.half :]):
            if index < self.half:  # with an odd number of layers the last input is in neither mean
                second_sum = second_sum + hidden_states
            hidden_states, _ = layer(hidden_states, key_bias)
        means = [(layer_sum / self.half).to(hidden_states.dtype) for layer_sum in (first_sum, second_sum)]
        return torch.cat([hidden_states, *means], dim=-1)


def _normalized(pixel_values: torch.Tensor | None) -> torch.Tensor | None:
    """Bytes as SigLIP has them in -1..1, computed where they are; other pixels are normalised already."""
    if pixel_values is None or pixel_values.dtype != torch.uint8:
        return pixel_values
    return pixel_values.float() / 127.5 - 1


def _key_bias(guide_attention_mask: torch.Tensor | None, num_patches: int, dtype: torch.dtype) -> torch.Tensor | None:
    """Additive bias (N, 1, 1, P + G) that hides guide padding from every query; None without a mask."""
    if guide_attention_mask is None:
        return None
    hidden = nn.functional.pad(guide_attention_mask == 0, (num_patches, 0))
    bias = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return bias.masked_fill(hidden, torch.finfo(dtype).min)[:, None, None, :]
