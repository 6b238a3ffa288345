"""The starting point of a run: a model and its processor.

Knows recipes and the model's parts; knows no data beyond the texts a tokenizer is trained on.
"""

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, GenerationConfig, PreTrainedTokenizerFast, SiglipVisionConfig

from fusionvl.model import FusionConfig, FusionForConditionalGeneration
from fusionvl.processing import FusionImageProcessorPil, FusionProcessor
from fusionvl.train.config import LearningRates, ModelFromScratch

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
    """
    vision_config = SiglipVisionConfig(**spec.vision, vision_use_head=False)
    processor = FusionProcessor(
        image_processor=FusionImageProcessorPil(
            size={"height": vision_config.image_size, "width": vision_config.image_size}
        ),
        tokenizer=train_tokenizer(texts, spec.vocab_size),
        chat_template="chatml",
        num_latents=num_latents if spec.fusion.get("num_interaction_layers") != 0 else 0,
        image_token_grid=spec.fusion.get("image_token_grid"),
        patch_size=vision_config.patch_size,
        window_size=spec.fusion.get("window_size", FusionConfig.window_size),
    )
    tokenizer = processor.tokenizer
    decoder = dict(spec.decoder)
    text_config = CONFIG_MAPPING[decoder.pop("model_type")](
        **decoder,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = FusionConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_token_id=processor.image_token_id,
        latent_token_id=processor.latent_token_id,
        **spec.fusion,
    )
    torch.manual_seed(seed)
    model = FusionForConditionalGeneration(config)
    position_embeddings = model.model.vision_tower.embeddings.position_embedding.weight
    with torch.no_grad():
        position_embeddings.copy_(waves_2d(config.patch_grid, config.vision_config.hidden_size))
    model.set_attn_implementation(spec.attention)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    return model, processor


def waves_2d(side: int, width: int) -> torch.Tensor:
    """Sines and cosines of each patch's row and column, (side * side, width).

    Random position embeddings drown in the patch embeddings of a fresh encoder; waves tell it from the first step
    which patches are neighbours. A small encoder trained from scratch learns shapes sooner from them.
    """
    frequencies = WAVE_BASE ** -torch.linspace(0, 1, width // 4)
    angles = torch.outer(torch.arange(side, dtype=torch.float32), frequencies)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=-1).reshape(side * side, width)


def part_of(parameter_name: str) -> str:
    """The part a parameter belongs to, as `LearningRates` names it."""
    name = parameter_name.removeprefix("model.")
    if name.startswith(("vision_to_text.", "text_to_vision.")):
        return "mapping"
    if name.startswith(("language_model.", "lm_head.")):
        return "decoder"
    return name.split(".", 1)[0]


def freeze_and_describe(model: FusionForConditionalGeneration, rates: LearningRates) -> str:
    """Freeze every part whose learning rate is 0; return a table of parts, parameters, state and rate."""
    counts = dict.fromkeys(vars(rates), 0)
    for name, parameter in model.named_parameters():
        part = part_of(name)
        parameter.requires_grad_(getattr(rates, part) > 0)
        counts[part] += parameter.numel()
    rows = [f"{'part':<20}{'parameters':>14}  {'state':<8}learning rate"]
    for part, rate in vars(rates).items():
        rows.append(f"{part:<20}{counts[part]:>14,}  {'trained' if rate > 0 else 'frozen':<8}{rate:g}")
    return "\n".join([*rows, f"{'all':<20}{sum(counts.values()):>14,}"])
