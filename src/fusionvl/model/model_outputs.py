"""What the model's calls return: encoded images, hidden states, losses. Knows shapes, computes nothing.

Shapes: B rows, S tokens, N images, G guide tokens, g patches a side, d vision width, D decoder width, V vocabulary.
"""

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

# What transformers calls the decoder's cache, in arguments and outputs: from 5.24 on by a shorter name.
CACHE = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"


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
class FusionModelOutput(BaseModelOutputWithPast):
    """Output of `FusionModel`: that of any decoder (last hidden state, cache, ...), and what is below.

    Attributes:
        text_mapping_loss: Scalar, on request.
        vision_mapping_loss: Scalar, on request.
    """

    text_mapping_loss: torch.Tensor | None = None
    vision_mapping_loss: torch.Tensor | None = None


@dataclass
class FusionCausalLMOutput(CausalLMOutputWithPast):
    """Output of `FusionForConditionalGeneration`: that of any decoder with a head, and what is below.

    `loss` is, with labels, `lm_loss + mapping_loss_weight * (text_mapping_loss + vision_mapping_loss)`; `logits`,
    (B, S or logits_to_keep, V), are None with labels unless `output_logits=True`.

    Attributes:
        lm_loss: Mean cross entropy over all answer tokens of the batch, with labels.
        text_mapping_loss: Guide tokens' mapping loss, 0 without a guide, with labels.
        vision_mapping_loss: Patches' mapping loss, 0 without an image, with labels.
    """

    lm_loss: torch.Tensor | None = None
    text_mapping_loss: torch.Tensor | None = None
    vision_mapping_loss: torch.Tensor | None = None
