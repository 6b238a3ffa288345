"""A model in a few lines: family, parts and their parameters, tokens an image takes.

Reads the configuration only; no weight is loaded, so the largest model is described as fast as the smallest.
"""

from collections import Counter
from pathlib import Path

import torch

from fusionvl.engine.loading import load_config
from fusionvl.engine.sources import shipped_model
from fusionvl.model import FusionForConditionalGeneration


def describe(name: str | Path | None = None) -> dict[str, str]:
    """Describe a model by hub name or folder; None is the shipped one.

    Raises:
        ValueError: When there is no such model, or it is not a FUSION.
    """
    source = str(name) if name is not None else str(shipped_model())
    config = load_config(source)
    with torch.device("meta"):
        model = FusionForConditionalGeneration(config)
    parts = Counter[str]()
    for parameter_name, parameter in model.named_parameters():
        parts[parameter_name.removeprefix("model.").split(".", 1)[0]] += parameter.numel()
    interactions = ", ".join(map(str, config.interaction_layer_indices))
    largest = (2 * config.patch_grid // config.window_size) ** 2
    return {
        "model": source,
        "decoder": f"{config.text_config.model_type}, {config.text_config.num_hidden_layers} layers "
        f"of width {config.text_config.hidden_size}, context {config.text_config.max_position_embeddings}",
        "vision encoder": f"SigLIP, {config.num_vision_layers} layers in use of width "
        f"{config.vision_config.hidden_size}, views of {config.vision_config.image_size} px",
        "guidance": f"{config.early_guidance} in early layers" if config.use_guidance else "none",
        "interaction layers": f"after decoder layers {interactions}" if interactions else "none",
        "image tokens": str(config.num_image_tokens),
        "latent tokens": f"1 to {largest} (a square number) per question" if config.uses_latents else "none",
        **{f"parameters, {part}": f"{count:,}" for part, count in parts.items()},
        "parameters, all": f"{parts.total():,}",
    }
