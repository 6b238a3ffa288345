"""A FUSION from a base language model and a SigLIP encoder: their weights copied exactly, what joins them fresh.

Mapping MLPs get transformers' usual initialisation. Interaction layers start at zero, so that the first step behaves
like the same model without them. Knows base checkpoints (safetensors or GGUF); knows no stages and no data.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.utils import logging as transformers_logging

from fusionvl.data.extras import locate
from fusionvl.engine.loading import in_one_sentence, load_model
from fusionvl.model import FusionConfig, FusionForConditionalGeneration
from fusionvl.model.released import ReleasedLoadingMixin, refuse_pickle
from fusionvl.processing import FusionProcessor
from fusionvl.processing.chat_format import VISION_END, VISION_START
from fusionvl.train.config import ModelFromParts
from fusionvl.train.geometry import check_model, fusion_config_of, vision_config_of
from fusionvl.train.scratch import build_processor, place_waves

VISION_TYPES = ("siglip", "siglip_vision_model")
_JOINTS = ("model.vision_to_text.", "model.text_to_vision.", "model.interaction_layers.")
_TOWER = "model.vision_tower."
_PROBE_TOKENS = 8


@dataclass(frozen=True)
class VisionPart:
    """A vision encoder.

    Attributes:
        config: Its geometry.
        weights: Under FUSION's names, without the last layer and the head; None for fresh ones.
    """

    config: SiglipVisionConfig
    weights: dict[str, torch.Tensor] | None


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
    vision = _load_vision(spec.vision)
    source = locate(spec.decoder)
    if spec.gguf_file is not None and Path(source).is_dir() and not (Path(source) / spec.gguf_file).is_file():
        raise ValueError(f"The folder {source} holds no {spec.gguf_file}")
    with in_one_sentence(source), _quiet():
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
    decoder = _load(AutoModelForCausalLM, source, "language model", (), arguments)
    head = decoder.get_output_embeddings()
    if head is None or head.bias is not None:
        raise ValueError(f"{source}: FUSION takes language models with an output head without bias")
    return decoder


def _load_vision(given: str | dict[str, Any]) -> VisionPart:
    if isinstance(given, dict):
        return VisionPart(vision_config_of(given), None)
    source = locate(given)
    with in_one_sentence(source):
        config = AutoConfig.from_pretrained(source)
    if config.model_type == FusionConfig.model_type:
        return _vision_of_fusion(source)
    if config.model_type not in VISION_TYPES:
        raise ValueError(
            f"{source} is a {config.model_type} model: FUSION takes the encoder of a SigLIP "
            f"({', '.join(VISION_TYPES)}) or of a FUSION"
        )
    config = config.vision_config if config.model_type == "siglip" else config
    config.vision_use_head = False
    last = f"encoder.layers.{config.num_hidden_layers - 1}."
    unused = ("text_model.", "vision_model.head.", "head.", "post_layernorm.", last, "logit_scale", "logit_bias")
    encoder = _load(SiglipVisionModel, source, "vision encoder", unused, {"config": config, "use_safetensors": True})
    weights = {
        _TOWER + name.removeprefix("encoder."): tensor
        for name, tensor in encoder.state_dict().items()
        if not name.startswith(unused)
    }
    return VisionPart(config, weights)


def _vision_of_fusion(source: str) -> VisionPart:
    """The encoder of a whole FUSION; what else it has learned stays behind."""
    fusion = load_model(source, torch.float32)
    return VisionPart(
        fusion.config.vision_config,
        {name: tensor for name, tensor in fusion.state_dict().items() if name.startswith(_TOWER)},
    )


def _load(model_class: Any, source: str, what: str, unused: tuple[str, ...], arguments: dict[str, Any]) -> Any:
    """Load a base model in float32, strictly but for keys that begin with one of `unused`."""
    if "gguf_file" not in arguments:
        refuse_pickle(Path(source))
    with in_one_sentence(source, what), _quiet():
        model, info = model_class.from_pretrained(source, dtype=torch.float32, output_loading_info=True, **arguments)
    missing, unexpected = (
        sorted(name for name in info[kind] if not name.startswith(unused))
        for kind in ("missing_keys", "unexpected_keys")
    )
    if missing or unexpected:
        raise ValueError(
            f"{source} does not fit as a {what}: {len(missing)} missing keys {missing[:5]}, "
            f"{len(unexpected)} unexpected keys {unexpected[:5]}"
        )
    return model.eval()


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
    with _quiet():
        model, info = super(ReleasedLoadingMixin, FusionForConditionalGeneration).from_pretrained(
            None,  # type: ignore[arg-type]  # transformers' way to load weights that are in memory
            config=config, state_dict=weights | (vision.weights or {}), dtype=torch.float32,
            output_loading_info=True,
        )  # fmt: skip
    fresh = _JOINTS if vision.weights is not None else (*_JOINTS, _TOWER)
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Keys are checked here, in one sentence; transformers' own table of them would only worry."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
