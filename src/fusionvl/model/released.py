"""Checkpoints released by FUSION's authors: their config keys and parameter names, read into ours.

Knows the released layout only: `model_type` fusion_llama, fusion_phi, fusion_qwen or fusion_mistral over a flat
decoder config, `mm_*` keys, and the parameter names of a LLaVA fork. Models are always saved in our layout.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import CONFIG_MAPPING, PreTrainedConfig, SiglipVisionConfig
from transformers.modeling_utils import PreTrainedModel

from fusionvl.model.configuration import FusionConfig
from fusionvl.processing.released import (
    FAMILIES,
    HUB_ARGUMENTS,
    TOWERS,
    UNKNOWN_TOWER_IMAGE_SIZE,
    end_of_turn_id,
    known_tower,
)

UNKNOWN_TOWER_HEAD_WIDTH = 16

_TOWER = r"^model\.vision_tower\.vision_tower\.vision_model\."
_SAMPLER = r"^model\.vision_sampler_layers\.(\d+)\.layers\.0\."
RELEASED_KEYS: dict[str, str] = {
    r"^model\.(embed_tokens|layers|norm)\.": r"model.language_model.\1.",
    r"^model\.mm_projector\.0\.": "model.vision_to_text.fc1.",
    r"^model\.mm_projector\.2\.": "model.vision_to_text.fc2.",
    r"^model\.aux_projector\.0\.": "model.text_to_vision.fc1.",
    r"^model\.aux_projector\.2\.": "model.text_to_vision.fc2.",
    _TOWER + r"embeddings\.": "model.vision_tower.embeddings.",
    _TOWER + r"encoder\.layers\.": "model.vision_tower.layers.",
    _SAMPLER + r"proj_in\.": r"model.interaction_layers.\1.input_proj.",
    _SAMPLER + r"proj_context\.": r"model.interaction_layers.\1.context_proj.",
    **{
        _SAMPLER + rf"cross_attn\.{name}_proj\.0\.": rf"model.interaction_layers.\1.attention.{name}_norm."
        for name in "qkv"
    },
    **{
        _SAMPLER + rf"cross_attn\.{name}_proj\.1\.": rf"model.interaction_layers.\1.attention.{name}_proj."
        for name in "qkv"
    },
    _SAMPLER + r"cross_attn\.o_proj\.": r"model.interaction_layers.\1.attention.o_proj.",
    _SAMPLER + r"norm\.": r"model.interaction_layers.\1.norm.",
    _SAMPLER + r"proj_out\.linear_1\.": r"model.interaction_layers.\1.fc1.",
    _SAMPLER + r"proj_out\.linear_2\.": r"model.interaction_layers.\1.fc2.",
}

_REQUIRED_KEYS = (
    "mm_vision_tower",
    "num_of_vision_sampler_layers",
    "start_of_vision_sampler_layers",
    "stride_of_vision_sampler_layers",
    "window_size",
)
# Not the decoder's: the rest of a released config is the decoder's own config.
_NOT_DECODER_KEYS = re.compile(
    r"^(mm_.*|tune_.*|unfreeze_.*|use_mm_.*|tokenizer_.*|freeze_.*|image_aspect_ratio|image_grid_pinpoints|query_len|"
    r"window_size|.*_of_vision_sampler_layers|architectures|model_type|transformers_version|auto_map|_name_or_path)$"
)


def our_key(released_key: str) -> str:
    """The name that a parameter of a released checkpoint has here."""
    for pattern, replacement in RELEASED_KEYS.items():
        released_key = re.sub(pattern, replacement, released_key)
    return released_key


def is_released(config: dict[str, Any]) -> bool:
    """Whether a raw config dict is in the released layout."""
    return config.get("model_type") in FAMILIES


def convert_config(
    released: dict[str, Any], folder: str | Path | None = None, vision_heads: int | None = None
) -> FusionConfig:
    """Read a released config into a `FusionConfig`.

    Args:
        released: The released `config.json` as a dict.
        folder: Where the checkpoint lies; needed for a vision tower that is not in `TOWERS`.
        vision_heads: Attention heads of an unknown tower.

    Raises:
        ValueError: For a key that is missing, or an unknown tower without a local checkpoint to read its geometry
            from.
    """
    if lacking := [key for key in _REQUIRED_KEYS if key not in released]:
        raise ValueError(f"The released configuration of {folder or 'this model'} lacks {', '.join(lacking)}")
    decoder_type = FAMILIES[released["model_type"]].decoder_type
    decoder = {key: value for key, value in released.items() if not _NOT_DECODER_KEYS.match(key)}
    dtype = decoder.pop("torch_dtype", None) or decoder.pop("dtype", None)
    text_config = CONFIG_MAPPING[decoder_type](**decoder, dtype=dtype)
    return FusionConfig(
        vision_config=_vision_config(released["mm_vision_tower"], folder, vision_heads, dtype),
        text_config=text_config,
        architectures=["FusionForConditionalGeneration"],
        early_guidance="released",
        mapping_targets="live",
        num_interaction_layers=released["num_of_vision_sampler_layers"],
        interaction_start=released["start_of_vision_sampler_layers"],
        interaction_stride=released["stride_of_vision_sampler_layers"],
        window_size=released["window_size"],
        tie_word_embeddings=text_config.tie_word_embeddings,
        dtype=dtype,
    )


def _vision_config(
    tower: str, folder: str | Path | None, vision_heads: int | None, dtype: str | None
) -> SiglipVisionConfig:
    geometry = known_tower(tower)
    if geometry is None:
        if folder is None or not Path(folder).is_dir():
            raise ValueError(
                f"Unknown vision tower {tower!r} (known: {sorted(TOWERS)}): its geometry is read from the "
                f"checkpoint's tensors, so pass the checkpoint as a local folder"
            )
        geometry = _geometry_from_tensors(Path(folder), vision_heads)
    return SiglipVisionConfig(**geometry, vision_use_head=False, dtype=dtype)


def _geometry_from_tensors(folder: Path, vision_heads: int | None) -> dict[str, int]:
    """Width, depth and patch size from the shapes in a checkpoint; images of unknown towers are 384 px."""
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as tensors:
            shapes |= {key: tensors.get_slice(key).get_shape() for key in tensors.keys()}  # noqa: SIM118
    tower = re.compile(_TOWER.replace("^", "", 1) + r"(.+)")
    shapes = {match[1]: shape for key, shape in shapes.items() if (match := tower.search(key))}
    if "embeddings.patch_embedding.weight" not in shapes:
        raise ValueError(f"{folder} holds no vision tower in the released layout (no patch embedding found)")
    width, _, patch_size, _ = shapes["embeddings.patch_embedding.weight"]
    saved_layers = 1 + max(int(key.split(".")[2]) for key in shapes if key.startswith("encoder.layers."))
    return {
        "hidden_size": width,
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": saved_layers + 1,  # released checkpoints leave out the unused last layer
        "num_attention_heads": vision_heads or width // UNKNOWN_TOWER_HEAD_WIDTH,
        "image_size": UNKNOWN_TOWER_IMAGE_SIZE,
        "patch_size": patch_size,
    }


class ReleasedFusionConfig(PreTrainedConfig):
    """Registered with `AutoConfig` for a released `model_type`; reading one yields a `FusionConfig`."""

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Convert, then let `FusionConfig` handle the remaining arguments as usual."""
        folder = kwargs.get("name_or_path") or config_dict.get("_name_or_path")
        config = convert_config(config_dict, folder, kwargs.pop("vision_heads", None))
        return FusionConfig.from_dict(config.to_dict(), **kwargs)


RELEASED_CONFIG_CLASSES: list[type[ReleasedFusionConfig]] = [
    type(f"Released_{model_type}", (ReleasedFusionConfig,), {"model_type": model_type}) for model_type in FAMILIES
]


class ReleasedLoadingMixin:
    """`from_pretrained` that reads both layouts, refuses pickles and tolerates no missing or unexpected key."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *args: Any,
        config: PreTrainedConfig | None = None,
        vision_heads: int | None = None,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a model of ours or a released one, by hub name or folder.

        Args:
            pretrained_model_name_or_path: Hub name or folder.
            *args: As for `PreTrainedModel.from_pretrained`.
            config: Replaces the checkpoint's own config.
            vision_heads: Attention heads of a released checkpoint's vision tower, when its name is not known.
            output_loading_info: Whether to return the loading info as well.
            **kwargs: As for `PreTrainedModel.from_pretrained`.

        Raises:
            ValueError: When a key is missing or unexpected (named), or the weights are a pickle.
        """
        source = str(pretrained_model_name_or_path)
        refuse_pickle(Path(source))
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        raw_config, _ = PreTrainedConfig.get_config_dict(source, **hub)
        if is_released(raw_config):
            config = config if config is not None else convert_config(raw_config, source, vision_heads)
            kwargs["key_mapping"] = RELEASED_KEYS
        model, info = super().from_pretrained(  # type: ignore[misc]
            source, *args, config=config, use_safetensors=True, output_loading_info=True, **kwargs
        )
        require_all_keys(source, model, info["missing_keys"], info["unexpected_keys"])
        if is_released(raw_config):
            model._weight_conversions = None  # transformers would undo the renaming on saving: we save in our layout
            if model.can_generate():
                _end_at_turns(model, end_of_turn_id(source, raw_config["model_type"], hub))
        return (model, info) if output_loading_info else model


def _end_at_turns(model: PreTrainedModel, end_of_turn: int | None) -> None:
    """Let generation end at the end of a turn, beside the ends that the checkpoint lists."""
    listed = model.generation_config.eos_token_id
    ends = {end_of_turn, *(listed if isinstance(listed, list) else [listed])} - {None}
    model.generation_config.eos_token_id = sorted(ends) or None


def refuse_pickle(folder: Path) -> None:
    """Refuse a folder whose weights are pickles alone.

    Raises:
        ValueError: With the files.
    """
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickles:
        raise ValueError(
            f"{folder} holds its weights as a pickle ({', '.join(pickles)}), which can run code when loaded: "
            f"convert them to safetensors first"
        )


def require_all_keys(source: str, model: PreTrainedModel, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    """Refuse a checkpoint that leaves a parameter open, or holds one that the model has no place for.

    Raises:
        ValueError: With counts and the first names.
    """
    # The base model of a full checkpoint has no head: that one key is left over by design.
    left_over = sorted(key for key in unexpected if hasattr(model, "lm_head") or "lm_head" not in key)
    open_keys = sorted(missing)
    if open_keys or left_over:
        raise ValueError(
            f"The checkpoint {source} does not fit the model: {len(open_keys)} missing keys {open_keys[:5]}, "
            f"{len(left_over)} unexpected keys {left_over[:5]}"
        )
