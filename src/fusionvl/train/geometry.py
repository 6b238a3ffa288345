"""The geometry that a recipe asks for -> configurations, or an error that names the field.

transformers takes any keyword as an attribute and lets sizes through that fail in the middle of a run; here they are
refused before it begins. Knows configurations; knows no weights and no files.
"""

import dataclasses
import re
from typing import Any, TypeVar

from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    PreTrainedConfig,
    SiglipConfig,
    SiglipTextConfig,
    SiglipVisionConfig,
)

from fusionvl.model import FusionConfig
from fusionvl.train.config import ModelFromParts, ModelFromScratch

Config = TypeVar("Config", bound=PreTrainedConfig)

SMALLEST_VOCABULARY = 260  # a tokenizer's 256 bytes and four marks
LARGEST_SIDE = 4096  # pixels of a view; one more view of that size is already larger than most decoders read
_WAVES = 4  # a sine and a cosine of two coordinates
_MAY_BE_ZERO = ("num_interaction_layers", "interaction_start", "max_window_layers")
_UNDECLARED = ("head_dim",)  # read by decoders whose configuration does not name it
_FROM_TOKENIZER = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
_FROM_PARTS = ("vision_config", "text_config", "image_token_id", "latent_token_id")
_DIVISIONS = (
    ("hidden_size", "num_attention_heads"),
    ("num_attention_heads", "num_key_value_heads"),
    ("image_size", "patch_size"),
)


def check_model(spec: ModelFromScratch | ModelFromParts) -> None:
    """Refuse a starting point that cannot be built, as far as the recipe itself tells.

    Raises:
        ValueError: With the field, its value and why it is refused.
    """
    if isinstance(spec, ModelFromParts):
        if isinstance(spec.vision, dict):
            vision_config_of(spec.vision)
        # Without layers nothing depends on the decoder, which is not there yet.
        fusion_config_of({**spec.fusion, "num_interaction_layers": 0})
        _check_sizes(spec.fusion, "model.fusion")
        return
    if spec.vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(f"model.vocab_size is {spec.vocab_size}, and a tokenizer has at least {SMALLEST_VOCABULARY}")
    decoder = decoder_config_of(spec.decoder, vocab_size=spec.vocab_size)
    vision = {} if isinstance(spec.vision, str) else {"vision_config": vision_config_of(spec.vision)}
    fusion_config_of(spec.fusion, **vision, text_config=decoder)


def vision_config_of(fields: dict[str, Any]) -> SiglipVisionConfig:
    """The configuration of an encoder with fresh weights.

    Raises:
        ValueError: On a field that it does not have, or a size that cannot be.
    """
    return _vision_config(fields, "model.vision", vision_use_head=False)


def _vision_config(fields: dict[str, Any], where: str, **filled_in: Any) -> SiglipVisionConfig:
    config = _configured(SiglipVisionConfig, fields, where, ("vision_use_head",), **filled_in)
    if config.image_size > LARGEST_SIDE:
        raise ValueError(f"{where}.image_size is {config.image_size} pixels, more than {LARGEST_SIDE}")
    if config.hidden_size % _WAVES:
        raise ValueError(f"{where}: hidden_size ({config.hidden_size}) is no multiple of {_WAVES}: a patch's place is "
                         "told by sines and cosines of its row and of its column")  # fmt: skip
    return config


def siglip_config_of(vision: dict[str, Any], text: dict[str, Any], vocab_size: int) -> SiglipConfig:
    """The configuration of a whole SigLIP with fresh weights.

    Raises:
        ValueError: On a field that a tower does not have, or a size that cannot be.
    """
    towers = (
        _vision_config(vision, "encoder.vision"),
        _configured(
            SiglipTextConfig,
            text,
            "encoder.text",
            _FROM_TOKENIZER,
            vocab_size=vocab_size,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        ),
    )
    if towers[0].hidden_size != towers[1].projection_size:
        raise ValueError(
            f"encoder.vision.hidden_size is {towers[0].hidden_size} and encoder.text.projection_size, its hidden_size "
            f"where it is left out, {towers[1].projection_size}: pictures and captions are compared at one width"
        )
    return SiglipConfig(vision_config=towers[0].to_dict(), text_config=towers[1].to_dict())


def decoder_config_of(fields: dict[str, Any], **filled_in: Any) -> PreTrainedConfig:
    """The configuration of a decoder with fresh weights.

    Args:
        fields: With `model_type`.
        **filled_in: What follows from the tokenizer.

    Raises:
        ValueError: On an unknown kind of model, a field that it does not have, or a size that cannot be.
    """
    kind = fields.get("model_type")
    if kind not in CONFIG_MAPPING or CONFIG_MAPPING[kind] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"model.decoder.model_type is {kind!r}, and transformers knows no such language model")
    own = {name: value for name, value in fields.items() if name != "model_type"}
    return _configured(CONFIG_MAPPING[kind], own, "model.decoder", _FROM_TOKENIZER, _UNDECLARED, **filled_in)


def fusion_config_of(fields: dict[str, Any], **parts: Any) -> FusionConfig:
    """The configuration of a FUSION.

    Args:
        fields: Of `FusionConfig`.
        **parts: What follows from encoder, decoder and tokenizer.

    Raises:
        ValueError: On a field that it does not have, or a geometry that cannot be built.
    """
    return _configured(FusionConfig, fields, "model.fusion", _FROM_PARTS, **parts)


def _configured(
    config_class: type[Config],
    fields: dict[str, Any],
    where: str,
    taken: tuple[str, ...],
    undeclared: tuple[str, ...] = (),
    **filled_in: Any,
) -> Config:
    """Make a configuration of a recipe's fields and what follows from elsewhere."""
    known = {field.name for field in dataclasses.fields(config_class)} | {*undeclared}
    if unknown := sorted(set(fields) - known | set(fields) & set(taken)):
        raise ValueError(f"{where}: {config_class.__name__} has no field {unknown[0]!r} to set")
    _check_sizes(fields, where)
    try:
        config = config_class(**fields, **filled_in)
    except (StrictDataclassError, ValueError, TypeError) as error:
        last_line = str(error).strip().splitlines()[-1]  # strict dataclasses tell the reason there, behind its kind
        reason = re.sub(r"^\s*\w+Error: ", "", last_line)
        raise ValueError(f"{where}: {reason}") from error
    for whole, part in _DIVISIONS:
        divided, by = getattr(config, whole, None), getattr(config, part, None)
        if divided and by and divided % by:
            raise ValueError(f"{where}: {whole} ({divided}) is no multiple of {part} ({by})")
    return config


def _check_sizes(fields: dict[str, Any], where: str) -> None:
    for name, value in fields.items():
        least = 0 if name in _MAY_BE_ZERO else 1
        if isinstance(value, int) and not isinstance(value, bool) and not name.endswith("_id") and value < least:
            raise ValueError(f"{where}.{name} is {value}, and must be at least {least}")
