"""Weights of base models: language models and vision encoders from a hub or a folder, loaded strictly.

Knows base checkpoints (safetensors or GGUF); knows nothing of what is made of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, SiglipVisionConfig, SiglipVisionModel
from transformers.utils import logging as transformers_logging

from fusionvl.data.extras import locate
from fusionvl.engine.loading import in_one_sentence, load_model
from fusionvl.model import FusionConfig
from fusionvl.model.released import refuse_pickle
from fusionvl.train.geometry import vision_config_of

VISION_TYPES = ("siglip", "siglip_vision_model")
TOWER = "model.vision_tower."


@dataclass(frozen=True)
class VisionPart:
    """A vision encoder.

    Attributes:
        config: Its geometry.
        weights: Under FUSION's names, without the last layer and the head; None for fresh ones.
    """

    config: SiglipVisionConfig
    weights: dict[str, torch.Tensor] | None


def load_vision(given: str | dict[str, Any]) -> VisionPart:
    """The encoder that a recipe names, or one with fresh weights.

    Args:
        given: Hub name or folder of a SigLIP or a FUSION, `package:NAME/FOLDER`, or fields of a `SiglipVisionConfig`.

    Raises:
        ValueError: When there is no such encoder, it is of another kind, or its weights do not fit.
    """
    if isinstance(given, dict):
        return VisionPart(vision_config_of(given), None)
    source = locate(given)
    with in_one_sentence(source), quiet():
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
    encoder = load_base(
        SiglipVisionModel, source, "vision encoder", unused, {"config": config, "use_safetensors": True}
    )
    weights = {
        TOWER + name.removeprefix("encoder."): tensor
        for name, tensor in encoder.state_dict().items()
        if not name.startswith(unused)
    }
    return VisionPart(config, weights)


def _vision_of_fusion(source: str) -> VisionPart:
    """The encoder of a whole FUSION; what else it has learned stays behind."""
    fusion = load_model(source, torch.float32)
    return VisionPart(
        fusion.config.vision_config,
        {name: tensor for name, tensor in fusion.state_dict().items() if name.startswith(TOWER)},
    )


def load_base(model_class: Any, source: str, what: str, unused: tuple[str, ...], arguments: dict[str, Any]) -> Any:
    """Load a base model in float32, strictly but for keys that begin with one of `unused`.

    Raises:
        ValueError: When it cannot be found, is a pickle, or its keys do not fit; they are named.
    """
    if "gguf_file" not in arguments:
        refuse_pickle(Path(source))
    with in_one_sentence(source, what), quiet():
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


@contextmanager
def quiet() -> Iterator[None]:
    """What matters is checked here, in one sentence; transformers' own tables and warnings would only worry."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
