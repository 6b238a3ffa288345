"""The processor of a checkpoint released by the FUSION authors, whose folder holds a config and tokenizer files only.

Knows which image size, patch size and chat template belong to which name in that config. Reads no weights.
"""

import os
from collections.abc import Mapping
from typing import Any

from transformers import AutoTokenizer, PreTrainedConfig
from transformers.utils import PROCESSOR_NAME, cached_file

from fusionvl.processing.image_processing import FusionImageProcessorPil

DEFAULT_NUM_LATENTS = 64

# Name of a vision tower -> side of a view and of a patch in pixels.
TOWER_SIZES = {
    "google/siglip-so400m-patch14-384": (384, 14),
    "google/siglip2-giant-opt-patch16-384": (384, 16),
}

# The released Mistral models have no published prompt form, so theirs must be given.
CHAT_TEMPLATE_OF_MODEL_TYPE = {
    "fusion_llama": "llama_3",
    "fusion_phi": "phi_3",
    "fusion_qwen": "chatml",
    "fusion_mistral": None,
}

_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def released_parts(name_or_path: str | os.PathLike[str], arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments of `FusionProcessor` for a released checkpoint; None if it is not one.

    Args:
        name_or_path: folder or hub name.
        arguments: hub arguments, and arguments of `FusionProcessor` that take precedence.

    Raises:
        ValueError: an unknown vision tower without `patch_size`, or no chat template for the language model.
    """
    hub = {name: arguments[name] for name in _HUB_ARGUMENTS if name in arguments}
    if cached_file(name_or_path, PROCESSOR_NAME, _raise_exceptions_for_missing_entries=False, **hub) is not None:
        return None
    config, _ = PreTrainedConfig.get_config_dict(name_or_path, **hub)
    model_type = config.get("model_type")
    if model_type not in CHAT_TEMPLATE_OF_MODEL_TYPE:
        return None
    own = ("chat_template", "num_latents", "image_token_grid", "patch_size", "window_size")
    given = {name: arguments[name] for name in own if arguments.get(name) is not None}
    tower = config["mm_vision_tower"]
    if tower not in TOWER_SIZES and "patch_size" not in given:
        raise ValueError(
            f"{name_or_path}: the patch size of vision tower {tower!r} is not known (known: "
            f"{', '.join(TOWER_SIZES)}); pass patch_size="
        )
    side, patch_size = TOWER_SIZES.get(tower, (384, given.get("patch_size")))
    chat_template = given.get("chat_template", CHAT_TEMPLATE_OF_MODEL_TYPE[model_type])
    if chat_template is None:
        raise ValueError(f"{name_or_path}: no chat template is known for {model_type}; pass chat_template=")
    return {
        "image_processor": FusionImageProcessorPil(size=side),
        "tokenizer": AutoTokenizer.from_pretrained(name_or_path, **hub),
        "patch_size": patch_size,
        "num_latents": _default_num_latents(config["query_len"]),
        "window_size": config["window_size"],
        **given,
        "chat_template": chat_template,
    }


def _default_num_latents(query_len: str) -> int:
    allowed = [int(count) for count in str(query_len).split(",")]
    return DEFAULT_NUM_LATENTS if DEFAULT_NUM_LATENTS in allowed else max(allowed)
