"""Model sizes for the benchmarks, and models of these sizes with random weights.

A benchmark needs no checkpoint: time and memory depend on the geometry alone. Knows configs; measures nothing.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
)

from fusionvl import FusionConfig, FusionForConditionalGeneration

EarlyGuidance = Literal["masked", "released"]


@dataclass(frozen=True)
class Geometry:
    """Every size that a benchmark can vary; the field names are also the names of the command line's flags."""

    vision_width: int
    vision_mlp: int
    vision_heads: int
    vision_layers: int
    image_size: int
    patch_size: int
    decoder: str
    decoder_width: int
    decoder_mlp: int
    decoder_heads: int
    decoder_key_value_heads: int
    decoder_layers: int
    vocabulary: int
    interaction_layers: int
    interaction_stride: int
    interaction_heads: int
    num_latents: int

    @property
    def patches(self) -> int:
        """Patches of one view."""
        return (self.image_size // self.patch_size) ** 2


_SO400M = {
    "vision_width": 1152, "vision_mlp": 4304, "vision_heads": 16, "vision_layers": 27, "image_size": 384,
    "patch_size": 14,
}  # fmt: skip
_GIANT_OPT = {
    "vision_width": 1536, "vision_mlp": 6144, "vision_heads": 16, "vision_layers": 40, "image_size": 384,
    "patch_size": 16,
}  # fmt: skip
_LLAMA_8B = {
    "decoder": "llama", "decoder_width": 4096, "decoder_mlp": 14336, "decoder_heads": 32,
    "decoder_key_value_heads": 8, "decoder_layers": 32, "vocabulary": 128256,
}  # fmt: skip
_PHI_3B = {
    "decoder": "phi3", "decoder_width": 3072, "decoder_mlp": 8192, "decoder_heads": 32,
    "decoder_key_value_heads": 32, "decoder_layers": 32, "vocabulary": 32064,
}  # fmt: skip
_RELEASED = {"interaction_layers": 10, "interaction_stride": 3, "interaction_heads": 16, "num_latents": 64}

PRESETS = {
    "mid": Geometry(
        vision_width=288, vision_mlp=1152, vision_heads=6, vision_layers=27, image_size=384, patch_size=14,
        decoder="llama", decoder_width=512, decoder_mlp=1408, decoder_heads=8, decoder_key_value_heads=8,
        decoder_layers=16, vocabulary=32000,
        interaction_layers=5, interaction_stride=3, interaction_heads=16, num_latents=64,
    ),
    "nano": Geometry(
        vision_width=128, vision_mlp=512, vision_heads=4, vision_layers=7, image_size=64, patch_size=8,
        decoder="llama", decoder_width=128, decoder_mlp=384, decoder_heads=4, decoder_key_value_heads=4,
        decoder_layers=6, vocabulary=512,
        interaction_layers=3, interaction_stride=2, interaction_heads=4, num_latents=16,
    ),
    "small": Geometry(
        vision_width=128, vision_mlp=512, vision_heads=4, vision_layers=5, image_size=48, patch_size=8,
        decoder="llama", decoder_width=576, decoder_mlp=1536, decoder_heads=9, decoder_key_value_heads=3,
        decoder_layers=30, vocabulary=49152,
        interaction_layers=10, interaction_stride=3, interaction_heads=16, num_latents=16,
    ),
    "8b": Geometry(**_SO400M, **_LLAMA_8B, **_RELEASED),
    "3b": Geometry(**_SO400M, **_PHI_3B, **_RELEASED),
    "x-8b": Geometry(**_GIANT_OPT, **_LLAMA_8B, **_RELEASED),
    "x-3b": Geometry(**_GIANT_OPT, **_PHI_3B, **_RELEASED),
}  # fmt: skip


@dataclass(frozen=True)
class Placement:
    """Where a model lives and how it computes."""

    device: torch.device
    dtype: torch.dtype
    attention: str


def build_fusion(
    geometry: Geometry, early_guidance: EarlyGuidance, place: Placement
) -> FusionForConditionalGeneration:
    """Build a FUSION model with random weights, its interaction layers at work as in a trained one."""
    config = FusionConfig(
        vision_config=_vision_config(geometry),
        text_config=_text_config(geometry),
        early_guidance=early_guidance,
        num_interaction_layers=geometry.interaction_layers,
        interaction_stride=geometry.interaction_stride,
        interaction_heads=geometry.interaction_heads,
    )
    model = _build(config, place)
    for layer in model.model.interaction_layers:
        nn.init.normal_(layer.fc2.weight, std=config.text_config.initializer_range)  # fresh ones add nothing
    return model


def build_llava(geometry: Geometry, place: Placement) -> LlavaForConditionalGeneration:
    """Build transformers' own LLaVA of the same encoder and decoder, with random weights."""
    config = LlavaConfig(
        vision_config=_vision_config(geometry),
        text_config=_text_config(geometry),
        image_token_index=geometry.vocabulary - 1,
        vision_feature_layer=-2,
        vision_feature_select_strategy="full",
        image_seq_length=geometry.patches,
    )
    return _build(config, place)


def _vision_config(geometry: Geometry) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=geometry.vision_width,
        intermediate_size=geometry.vision_mlp,
        num_attention_heads=geometry.vision_heads,
        num_hidden_layers=geometry.vision_layers,
        image_size=geometry.image_size,
        patch_size=geometry.patch_size,
        vision_use_head=False,
    )


def _text_config(geometry: Geometry) -> AutoConfig:
    return AutoConfig.for_model(
        geometry.decoder,
        hidden_size=geometry.decoder_width,
        intermediate_size=geometry.decoder_mlp,
        num_attention_heads=geometry.decoder_heads,
        num_key_value_heads=geometry.decoder_key_value_heads,
        num_hidden_layers=geometry.decoder_layers,
        vocab_size=geometry.vocabulary,
        max_position_embeddings=8192,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )


def _build(config: FusionConfig | LlavaConfig, place: Placement) -> nn.Module:
    torch.manual_seed(0)
    with place.device:
        model = AutoModelForImageTextToText.from_config(config, dtype=place.dtype, attn_implementation=place.attention)
    model.generation_config.eos_token_id = None  # answers are as long as the benchmark asks for
    model.generation_config.pad_token_id = 0
    return model.eval().to(place.device)
