"""The procedure of the released FUSION code, reconstructed as a baseline. NOT the original code.

Written from the described behaviour of the released code (arXiv 2504.09925 and its release), with our parts:
* patches and guide run as one joint sequence through every layer, restricted in the first half by a dense mask;
* the encoder takes one view after another, with plain attention: all scores, their softmax in float32; the decoder's
  attention is transformers' own;
* the hidden states of all layers are kept and stacked, then averaged;
* each interaction layer maps and projects the windows once per question, not once per image;
* every position gets its logits, the prompt's too, in answers and in training;
* nothing is kept between questions or turns: all five views are encoded again.
It computes the same function as `fusionvl`, and the benchmark checks that it does. Knows no clocks.
"""

import copy
from typing import TypeVar

import torch
from geometry import EarlyGuidance
from torch import nn

from fusionvl import FusionForConditionalGeneration
from fusionvl.model.interaction import InteractionContext, InteractionLayer
from fusionvl.model.losses import IGNORED
from fusionvl.model.vision_encoder import EncodedView, GuidedVisionEncoder, PatchStates

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class OriginalStyleEncoder(GuidedVisionEncoder):
    """View by view: joint sequence, dense masks, all hidden states stored."""

    def forward(
        self,
        pixel_values: torch.Tensor | None,
        guide: torch.Tensor | None = None,
        guide_attention_mask: torch.Tensor | None = None,
        patch_states: PatchStates | None = None,
    ) -> EncodedView:
        """Encode as `GuidedVisionEncoder.forward` does, one view after another without padding or kept states."""
        guides = [None] * len(pixel_values) if guide is None else guide.split(1)
        views = [self._encode(view, of_view) for view, of_view in zip(pixel_values.split(1), guides, strict=True)]
        return EncodedView(*(torch.cat(features) for features in zip(*views, strict=True)))

    def _encode(
        self, view: torch.Tensor, guide: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        patches = self.embeddings(view)
        tokens, mask = patches, None
        if guide is not None:
            tokens = torch.cat([patches, guide], dim=1)
            mask = self._early_mask(patches, guide)
        stored = [tokens]
        for index, layer in enumerate(self.layers):
            tokens, _ = layer(tokens, mask if index < self.half else None)
            stored.append(tokens)
        first = torch.stack(stored[: self.half]).float().mean(dim=0).to(tokens.dtype)
        second = torch.stack(stored[self.half : 2 * self.half]).float().mean(dim=0).to(tokens.dtype)
        features = torch.cat([tokens, first, second], dim=-1)
        num_patches = patches.shape[1]
        return patches, features[:, :num_patches], features[:, num_patches:]

    def _early_mask(self, patches: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
        """Additive mask (1, 1, T, T); a row that is lowered everywhere attends uniformly, as it was released."""
        num_patches, length = patches.shape[1], patches.shape[1] + guide.shape[1]
        mask = patches.new_zeros((1, 1, length, length))
        lowest = torch.finfo(patches.dtype).min
        if self.early_guidance == "masked":
            mask[..., :num_patches, num_patches:] = lowest
        else:
            mask[..., num_patches:, :] = lowest
        return mask


class OriginalStyleInteractionLayer(InteractionLayer):
    """Window keys and values per question."""

    def forward(self, hidden_states: torch.Tensor, context: InteractionContext) -> torch.Tensor:
        """As `InteractionLayer.forward`."""
        flat = hidden_states.flatten(0, 1)
        latents = flat[context.latent_positions]
        question_ends = flat[context.question_ends].unsqueeze(1).expand_as(latents)
        windows = context.windows[context.image_of_question]
        keys, values = self.attention.project_windows(self.context_proj(windows))
        update, _ = self._gather_evidence(latents, question_ends, keys, values)
        updated = flat.index_add(0, context.latent_positions.flatten(), update.flatten(0, 1).to(flat.dtype))
        return updated.view_as(hidden_states)


class OriginalStyleModel(FusionForConditionalGeneration):
    """Logits of all positions."""

    def _supports_logits_to_keep(self) -> bool:
        return False

    def _lm_loss(self, hidden_states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self.lm_head(hidden_states).float()
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)


def share_weights(model: AnyModule) -> AnyModule:
    """A copy of a model that holds the same parameters and buffers, not copies of them."""
    kept = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, memo={id(tensor): tensor for tensor in kept})


def with_early_guidance(
    model: FusionForConditionalGeneration, early_guidance: EarlyGuidance
) -> FusionForConditionalGeneration:
    """The same weights under another early guidance."""
    twin = share_weights(model)
    twin.config.early_guidance = early_guidance
    twin.model.vision_tower.early_guidance = early_guidance
    return twin


def original_style(model: FusionForConditionalGeneration) -> FusionForConditionalGeneration:
    """The same weights, computed by the reconstructed procedure."""
    twin = share_weights(model)
    twin.__class__ = OriginalStyleModel
    twin.model.vision_tower.__class__ = OriginalStyleEncoder
    twin.model.vision_tower.set_attn_implementation("eager")
    for layer in twin.model.interaction_layers:
        layer.__class__ = OriginalStyleInteractionLayer
    return twin
