"""A FUSION from a base language model and a SigLIP encoder: their weights copied exactly, what joins them fresh.

Mapping MLPs get transformers' usual initialisation. Interaction layers start at zero, so that the first step behaves
like the same model without them. Knows base checkpoints (safetensors or GGUF); knows no stages and no data.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
)

from fusionvl.data.extras import locate
from fusionvl.engine.loading import in_one_sentence
from fusionvl.model import FusionForConditionalGeneration
from fusionvl.model.released import ReleasedLoadingMixin
from fusionvl.processing import FusionProcessor
from fusionvl.processing.chat_format import VISION_END, VISION_START
from fusionvl.train.base_weights import TOWER, VisionPart, load_base, load_vision, quiet
from fusionvl.train.config import ModelFromParts
from fusionvl.train.geometry import check_model, fusion_config_of
from fusionvl.train.scratch import build_processor, place_waves

_JOINTS = ("model.vision_to_text.", "model.text_to_vision.", "model.interaction_layers.")
_PROBE_TOKENS = 8


def build_from_parts(
    spec: ModelFromParts, num_latents: int, seed: int
) -> tuple[FusionForConditionalGeneration, FusionProcessor]:
    """Join a base language model and a vision encoder.

    Args:
        spec: Where the parts are, and FUSION's own fields.
        num_latents: The processor's default number of latent tokens.
        seed: Decides the fresh weights.

    Raises:
        ValueError: When a part cannot be found or loaded, its weights are a pickle or do not fit (keys are named), a
            field does not exist, or the language model is of a kind that FUSION cannot stand in for.
    """
    check_model(spec)
    vision = load_vision(spec.vision)
    source = locate(spec.decoder)
    if spec.gguf_file is not None and Path(source).is_dir() and not (Path(source) / spec.gguf_file).is_file():
        raise ValueError(f"The folder {source} holds no {spec.gguf_file}")
    with in_one_sentence(source), quiet():
        tokenizer = AutoTokenizer.from_pretrained(source, **_gguf(spec))
    processor = build_processor(tokenizer, spec.chat_template, vision.config, spec.fusion, num_latents)
    decoder = _load_decoder(spec, source)
    model = _join(decoder, vision, processor, spec.fusion, seed)
    _check_text_path(model, decoder, source)
    model.generation_config = _generation_config(decoder, processor)
    model.set_attn_implementation(spec.attention)
    return model, processor


def _gguf(spec: ModelFromParts) -> dict[str, str]:
    return {} if spec.gguf_file is None else {"gguf_file": spec.gguf_file}


def _load_decoder(spec: ModelFromParts, source: str) -> PreTrainedModel:
    arguments: dict[str, Any] = _gguf(spec) or {"use_safetensors": True}
    decoder = load_base(AutoModelForCausalLM, source, "language model", (), arguments)
    head = decoder.get_output_embeddings()
    if head is None or head.bias is not None:
        raise ValueError(f"{source}: FUSION takes language models with an output head without bias")
    return decoder


def _join(
    decoder: PreTrainedModel, vision: VisionPart, processor: FusionProcessor, fusion: dict[str, Any], seed: int
) -> FusionForConditionalGeneration:
    """Make the model around the weights: it is never filled with random ones first."""
    weights = {f"model.language_model.{name}": tensor for name, tensor in decoder.base_model.state_dict().items()}
    weights["lm_head.weight"] = decoder.get_output_embeddings().weight.detach()
    rows = _rows_needed(processor, weights["lm_head.weight"].shape[0])
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = _with_mean_rows(weights[name], rows)
    text_config = copy.deepcopy(decoder.config)
    text_config.vocab_size = rows
    if text_config.tie_word_embeddings:
        del weights["lm_head.weight"]
    if hasattr(text_config, "quantization_config"):  # of a GGUF file; the weights are ordinary floats by now
        del text_config.quantization_config
    config = fusion_config_of(
        fusion,
        vision_config=vision.config,
        text_config=text_config,
        image_token_id=processor.image_token_id,
        latent_token_id=processor.latent_token_id,
    )
    torch.manual_seed(seed)
    with quiet():
        model, info = super(ReleasedLoadingMixin, FusionForConditionalGeneration).from_pretrained(
            None,  # type: ignore[arg-type]  # transformers' way to load weights that are in memory
            config=config, state_dict=weights | (vision.weights or {}), dtype=torch.float32,
            output_loading_info=True,
        )  # fmt: skip
    fresh = _JOINTS if vision.weights is not None else (*_JOINTS, TOWER)
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(fresh))
    unexpected = sorted(info["unexpected_keys"])
    if missing or unexpected:
        raise ValueError(f"The parts do not make a FUSION: missing keys {missing[:5]}, unexpected {unexpected[:5]}")
    if vision.weights is None:
        place_waves(model)
    return model


def _rows_needed(processor: FusionProcessor, vocab_size: int) -> int:
    """Embedding rows: vision marks are embedded as text; image and latent placeholders never are."""
    marks = processor.tokenizer.convert_tokens_to_ids([VISION_START, VISION_END])
    return max(vocab_size, max(marks) + 1)


def _with_mean_rows(table: torch.Tensor, rows: int) -> torch.Tensor:
    """The table with rows added that are the mean of all: a new token is then no more likely than another."""
    added = rows - table.shape[0]
    return table if not added else torch.cat([table, table.mean(dim=0, keepdim=True).expand(added, -1)])


@torch.no_grad()
def _check_text_path(model: FusionForConditionalGeneration, decoder: PreTrainedModel, source: str) -> None:
    """Some decoders scale embeddings or logits outside their layers; FUSION would silently leave that out."""
    ids = torch.arange(_PROBE_TOKENS)[None]
    expected = decoder(input_ids=ids).logits
    found = model.eval()(input_ids=ids).logits[..., : expected.shape[-1]]
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"{source}: a {decoder.config.model_type} model computes more than its layers and head (its logits on "
            f"text differ by up to {float((found - expected).abs().max()):.3g}); FUSION does not support it"
        )


def _generation_config(decoder: PreTrainedModel, processor: FusionProcessor) -> GenerationConfig:
    """Greedy, ending where the base model ends and where the chat template ends a turn."""
    tokenizer, base = processor.tokenizer, decoder.generation_config.eos_token_id
    turn_end = tokenizer.convert_tokens_to_ids(processor.chat_format.answer_end.strip())
    ends = {turn_end, tokenizer.eos_token_id, *(base if isinstance(base, list) else [base])} - {None}
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
