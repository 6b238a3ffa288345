"""Checkpoints released by the FUSION authors, by the names in their config: families, towers, and their processor.

A released folder holds a config and tokenizer files, nothing about images. The one table of what those names mean;
`model/released.py` reads it, too. Reads no weights.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.utils import PROCESSOR_NAME

from fusionvl.processing.image_processing import FusionImageProcessorPil
from fusionvl.processing.text_encoding import WORD_START
from fusionvl.processing.tokenizer_files import find_file, load_tokenizer

DEFAULT_NUM_LATENTS = 64
UNKNOWN_TOWER_IMAGE_SIZE = 384
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


@dataclass(frozen=True)
class Family:
    """Released models with one kind of decoder.

    Attributes:
        decoder_type: transformers' name of the decoder.
        chat_template: How it was prompted; None: not published, so it must be given.
        end_of_turn: The token that ends an answer; None with the template.
    """

    decoder_type: str
    chat_template: str | None
    end_of_turn: str | None


FAMILIES = {
    "fusion_llama": Family("llama", "llama_3", "<|eot_id|>"),
    "fusion_phi": Family("phi3", "phi_3", "<|end|>"),
    "fusion_qwen": Family("qwen2", "chatml", "<|im_end|>"),
    "fusion_mistral": Family("mistral", None, None),
}

# A released config only names its tower (reference, section 1); these need no download.
TOWERS: dict[str, dict[str, int]] = {
    "siglip-so400m-patch14-384": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    },
    "siglip2-giant-opt-patch16-384": {
        "hidden_size": 1536,
        "intermediate_size": 6144,
        "num_hidden_layers": 40,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 16,
    },
}


def known_tower(name: str) -> dict[str, int] | None:
    """The geometry of a tower by its name or by the path it once lay at; None if it is not in `TOWERS`."""
    return TOWERS.get(name.rstrip("/").rsplit("/", 1)[-1])


def released_parts(name_or_path: str | os.PathLike[str], arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments of `FusionProcessor` for a released checkpoint; None if it is not one.

    Args:
        name_or_path: folder or hub name.
        arguments: hub arguments, and arguments of `FusionProcessor` that take precedence.

    Raises:
        ValueError: an unknown vision tower without `patch_size`, no chat template for the language model, or a
            damaged tokenizer.
    """
    hub = {name: arguments[name] for name in HUB_ARGUMENTS if name in arguments}
    if find_file(name_or_path, PROCESSOR_NAME, hub) is not None:
        return None
    config, _ = PreTrainedConfig.get_config_dict(name_or_path, **hub)
    family = FAMILIES.get(config.get("model_type"))
    if family is None:
        return None
    own = ("chat_template", "num_latents", "image_token_grid", "patch_size", "window_size")
    given = {name: arguments[name] for name in own if arguments.get(name) is not None}
    chat_template = given.get("chat_template", family.chat_template)
    if chat_template is None:
        raise ValueError(f"{name_or_path}: no chat template is known for {config['model_type']}; pass chat_template=")
    tower = known_tower(config["mm_vision_tower"])
    if tower is None and "patch_size" not in given:
        raise ValueError(
            f"{name_or_path}: the patch size of vision tower {config['mm_vision_tower']!r} is not known (known: "
            f"{', '.join(TOWERS)}); pass patch_size="
        )
    sizes: dict[str, Any] = tower or {"image_size": UNKNOWN_TOWER_IMAGE_SIZE, "patch_size": given.get("patch_size")}
    tokenizer = load_tokenizer(name_or_path, hub)
    return {
        "image_processor": FusionImageProcessorPil(size=sizes["image_size"]),
        "tokenizer": tokenizer,
        "patch_size": sizes["patch_size"],
        "num_latents": _default_num_latents(config["query_len"]),
        "window_size": config["window_size"],
        "leading_space": WORD_START in tokenizer.get_vocab(),
        **given,
        "chat_template": chat_template,
    }


def end_of_turn_id(name_or_path: str | os.PathLike[str], model_type: str, hub: Mapping[str, Any]) -> int | None:
    """The id of the token that ends an answer of a released checkpoint, from its tokenizer files; None: not found.

    Its `generation_config.json` may leave that token out: the released code stops at it by itself.

    Args:
        name_or_path: folder or hub name.
        model_type: as in the released config.
        hub: hub arguments.
    """
    end_of_turn = FAMILIES[model_type].end_of_turn
    # Slow tokenizers list their added tokens in one file, fast ones in the other.
    added = _json(find_file(name_or_path, "tokenizer_config.json", hub)).get("added_tokens_decoder", {})
    ids = {token["content"]: int(index) for index, token in added.items()}
    if end_of_turn not in ids:
        tokens = _json(find_file(name_or_path, "tokenizer.json", hub)).get("added_tokens", [])
        ids = {token["content"]: token["id"] for token in tokens}
    return ids.get(end_of_turn)


def _json(path: Path | None) -> dict[str, Any]:
    return {} if path is None else json.loads(path.read_text(encoding="utf-8"))


def _default_num_latents(query_len: str) -> int:
    allowed = [int(count) for count in str(query_len).split(",")]
    return DEFAULT_NUM_LATENTS if DEFAULT_NUM_LATENTS in allowed else max(allowed)
