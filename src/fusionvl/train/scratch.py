"""A small model with fresh weights, and a tokenizer trained on its training text.

Knows the model's parts; knows no data beyond the texts a tokenizer is trained on.
"""

from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)

from fusionvl.model import FusionConfig, FusionForConditionalGeneration
from fusionvl.processing import FusionImageProcessorPil, FusionProcessor
from fusionvl.train.base_weights import load_vision
from fusionvl.train.config import ModelFromScratch
from fusionvl.train.geometry import decoder_config_of, fusion_config_of

WAVE_BASE = 100.0  # longest wave over shortest, enough for grids of a few dozen patches
BOS, END_OF_TURN, START_OF_TURN, PADDING = "<|begin|>", "<|im_end|>", "<|im_start|>", "<|pad|>"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer: every text can be written in it, frequent words are one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[PADDING, BOS, START_OF_TURN, END_OF_TURN],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=END_OF_TURN, pad_token=PADDING, padding_side="left"
    )


def build_from_scratch(
    spec: ModelFromScratch, texts: Iterable[str], num_latents: int, seed: int
) -> tuple[FusionForConditionalGeneration, FusionProcessor]:
    """Build a model with fresh weights and its processor.

    Args:
        spec: The geometry.
        texts: What the tokenizer is trained on.
        num_latents: The processor's default number of latent tokens.
        seed: Decides the weights.

    Raises:
        ValueError: On a field that a config does not have, or an encoder that cannot be loaded.
    """
    vision = load_vision(spec.vision)
    vision_config = vision.config
    processor = build_processor(
        train_tokenizer(texts, spec.vocab_size), "chatml", vision_config, spec.fusion, num_latents
    )
    tokenizer = processor.tokenizer
    text_config = decoder_config_of(
        spec.decoder,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = fusion_config_of(
        spec.fusion,
        vision_config=vision_config,
        text_config=text_config,
        image_token_id=processor.image_token_id,
        latent_token_id=processor.latent_token_id,
    )
    torch.manual_seed(seed)
    model = FusionForConditionalGeneration(config)
    if vision.weights is None:
        place_waves(model)
    else:
        model.load_state_dict(vision.weights, strict=False)
    model.set_attn_implementation(spec.attention)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    return model, processor


def build_processor(
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str,
    vision_config: SiglipVisionConfig,
    fusion: dict[str, Any],
    num_latents: int,
) -> FusionProcessor:
    """The processor of a model that is made of these parts."""
    return FusionProcessor(
        image_processor=FusionImageProcessorPil(
            size={"height": vision_config.image_size, "width": vision_config.image_size}
        ),
        tokenizer=tokenizer,
        chat_template=chat_template,
        num_latents=num_latents if fusion.get("num_interaction_layers") != 0 else 0,
        image_token_grid=fusion.get("image_token_grid"),
        tile_tokens=fusion.get("tile_tokens", False),
        patch_size=vision_config.patch_size,
        window_size=fusion.get("window_size", FusionConfig.window_size),
    )


@torch.no_grad()
def place_waves(model: FusionForConditionalGeneration) -> None:
    """Start a fresh encoder's position embeddings as waves, see `waves_2d`."""
    width = model.config.vision_config.hidden_size
    model.model.vision_tower.embeddings.position_embedding.weight.copy_(waves_2d(model.config.patch_grid, width))


def waves_2d(side: int, width: int) -> torch.Tensor:
    """Sines and cosines of each patch's row and column, (side * side, width).

    Random position embeddings are small beside the patch embeddings of a fresh encoder; waves tell it from the first
    step which patches are neighbours.
    """
    # Both on the CPU by name: under torch.device("meta") one of them may be made there and the other not, depending on
    # whether transformers had exchanged torch.linspace when torch first listed the functions that make tensors.
    frequencies = WAVE_BASE ** -torch.linspace(0, 1, width // 4, device="cpu")
    angles = torch.outer(torch.arange(side, dtype=torch.float32, device="cpu"), frequencies)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=-1).reshape(side * side, width)
