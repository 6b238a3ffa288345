"""What the model's calls return: encoded images, hidden states, losses. Knows shapes, computes nothing.

Shapes: B rows, S tokens, N images, G guide tokens, g patches a side, d vision width, D decoder width, V vocabulary.
"""

from dataclasses import dataclass

import torch
from transformers import Cache
from transformers.modeling_outputs import ModelOutput


@dataclass(frozen=True)
class EncodedImages:
    """What the decoder and the mapping loss need of N images.

    Attributes:
        patch_embeddings: (N, g * g, d) of the base view.
        patches: (N, g * g, D) guided features of the base view, before any FUSION-L interpolation.
        guide_embeddings: (N, G, D) the decoder's embeddings of the guide text, None without guidance.
        guide: (N, G, D) the same tokens after their way through the encoder, None without guidance.
        global_map: (N, 2g, 2g, D) features of the tiles, None where neither latent nor image tokens need them.
    """

    patch_embeddings: torch.Tensor
    patches: torch.Tensor
    guide_embeddings: torch.Tensor | None
    guide: torch.Tensor | None
    global_map: torch.Tensor | None


@dataclass
class FusionModelOutput(ModelOutput):
    """Output of `FusionModel`.

    Attributes:
        last_hidden_state: (B, S, D).
        past_key_values: The decoder's cache.
        hidden_states: One (B, S, D) per decoder layer and one for the embeddings, on request.
        attentions: One (B, heads, S, S) per decoder layer, on request.
        text_mapping_loss: Scalar, on request.
        vision_mapping_loss: Scalar, on request.
    """

    last_hidden_state: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    text_mapping_loss: torch.Tensor | None = None
    vision_mapping_loss: torch.Tensor | None = None


@dataclass
class FusionCausalLMOutput(ModelOutput):
    """Output of `FusionForConditionalGeneration`.

    Attributes:
        loss: `lm_loss + mapping_loss_weight * (text_mapping_loss + vision_mapping_loss)`, with labels.
        logits: (B, S or logits_to_keep, V); None with labels unless `output_logits=True`.
        past_key_values: The decoder's cache.
        hidden_states: As in `FusionModelOutput`.
        attentions: As in `FusionModelOutput`.
        lm_loss: Mean cross entropy over all answer tokens of the batch, with labels.
        text_mapping_loss: Guide tokens' mapping loss, 0 without a guide, with labels.
        vision_mapping_loss: Patches' mapping loss, 0 without an image, with labels.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    lm_loss: torch.Tensor | None = None
    text_mapping_loss: torch.Tensor | None = None
    vision_mapping_loss: torch.Tensor | None = None
