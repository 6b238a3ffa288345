"""Writes a folder as the hub has a released FUSION: config, foreign code, tokenizer files, weights in shards.

The weights are random; names, shapes, dtype and files are the released ones. One piece of one tensor is in memory at a
time. Knows the released layout; loads no model and asks no question.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from geometry import PRESETS as GEOMETRIES
from geometry import Geometry
from transformers import SiglipVisionConfig

from fusionvl.model import FusionConfig, FusionForConditionalGeneration
from fusionvl.model.released import RELEASED_KEYS, convert_config

Shape = tuple[int, ...]

PHI_TOKENIZER = Path(__file__).parents[1] / "tests" / "reference" / "tokenizers" / "phi"
SHARD_BYTES = 5_000_000_000
BYTES_PER_WEIGHT = 2  # bfloat16
PIECE = 2**24  # weights drawn at a time
TOWER_PREFIX = "model.vision_tower.vision_tower.vision_model."
SO400M, GIANT_OPT = "google/siglip-so400m-patch14-384", "google/siglip2-giant-opt-patch16-384"
UNKNOWN_TOWER = "tiny/siglip-tiny-patch32-384"
FOREIGN_CODE = ("configuration_fusion.py", "modeling_fusion.py")

# The factors of Phi-3.5-mini's rotary frequencies, one for each pair of a head's channels.
_PHI_LONG = [
    1.08, 1.11, 1.14, 1.34, 1.59, 1.6, 1.62, 2.62, 3.23, 3.23, 4.79, 7.4, 7.7, 9.09, 12.2, 17.67, 24.46, 28.57, 30.42,
    30.84, 32.59, 32.93, 42.32, 44.96, 50.34, 50.45, 57.55, 57.93, 58.21, 60.14, 62.61, 62.62, 62.71, 63.14, 63.14,
    63.77, 63.93, 63.96, 63.97, 64.03, 64.07, 64.08, 64.12, 64.41, 64.48, 64.51, 64.53, 64.84,
]  # fmt: skip
_PHI_SHORT = [
    1.0, 1.02, 1.03, 1.03, 1.05, 1.05, 1.05, 1.05, 1.05, 1.07, 1.1, 1.11, 1.16, 1.16, 1.17, 1.29, 1.34, 1.68, 1.79,
    1.82, 1.85, 1.88, 1.91, 1.94, 1.99, 2.02, 2.02, 2.02, 2.02, 2.02, 2.02, 2.03, 2.03, 2.03, 2.03, 2.03, 2.03, 2.03,
    2.03, 2.03, 2.08, 2.09, 2.19, 2.22, 2.59, 2.73, 2.75, 2.84,
]  # fmt: skip

_LLAMA = {
    "architectures": ["FusionLlamaForCausalLM"], "model_type": "fusion_llama", "vocab_size": 128258,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "attention_bias": False,
    "mlp_bias": False, "pretraining_tp": 1, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009],
    "rope_scaling": {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}  # fmt: skip
_PHI = {
    "architectures": ["FusionPhiForCausalLM"], "model_type": "fusion_phi", "vocab_size": 32064,
    "max_position_embeddings": 131072, "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "attention_bias": False, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "sliding_window": 262144,
    "bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000,
}  # fmt: skip
# None of Phi's lists <|end|>, which ends every answer: a loader has to know it from the chat template.
_GENERATION: dict[str, dict[str, Any]] = {
    "fusion_llama": {"bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "do_sample": True,
                     "temperature": 0.6, "top_p": 0.9},
    "fusion_phi": {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000},
}  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """A released model, or one like it.

    Attributes:
        geometry: Sizes of its parts.
        decoder: The keys of the decoder in a released config, without the sizes.
        tower: Name of its vision tower.
        billions: Parameters it is known to have, in billions; None when nothing is known.
    """

    geometry: Geometry
    decoder: dict[str, Any]
    tower: str
    billions: float | None = None


_TINY = Geometry(
    vision_width=32, vision_mlp=64, vision_heads=2, vision_layers=5, image_size=384, patch_size=32,
    decoder="phi3", decoder_width=64, decoder_mlp=128, decoder_heads=4, decoder_key_value_heads=4, decoder_layers=4,
    vocabulary=32064, interaction_layers=2, interaction_stride=3, interaction_heads=16, num_latents=64,
)  # fmt: skip
PRESETS = {
    "3b": Preset(GEOMETRIES["3b"], _PHI, SO400M, 5.09),
    "8b": Preset(GEOMETRIES["8b"], _LLAMA, SO400M, 9.975),
    "x-3b": Preset(GEOMETRIES["x-3b"], _PHI, GIANT_OPT, 5.81),
    "x-8b": Preset(GEOMETRIES["x-8b"], _LLAMA, GIANT_OPT, 10.69),
    "tiny": Preset(_TINY, _PHI, UNKNOWN_TOWER),
}


def released_config(preset: Preset) -> dict[str, Any]:
    """The `config.json` of a released model."""
    sizes = preset.geometry
    config = preset.decoder | {
        "hidden_size": sizes.decoder_width, "intermediate_size": sizes.decoder_mlp,
        "num_hidden_layers": sizes.decoder_layers, "num_attention_heads": sizes.decoder_heads,
        "num_key_value_heads": sizes.decoder_key_value_heads, "hidden_act": "silu", "attention_dropout": 0.0,
        "initializer_range": 0.02, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True,
        "transformers_version": "4.48.1", "image_aspect_ratio": "static_hd", "mm_hidden_size": sizes.vision_width,
        "mm_patch_merge_type": "flat", "mm_projector_type": "mlp2x_gelu", "mm_use_im_patch_token": False,
        "mm_use_im_start_end": True, "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2,
        "mm_vision_tower": preset.tower, "num_of_vision_sampler_layers": sizes.interaction_layers,
        "start_of_vision_sampler_layers": 0, "stride_of_vision_sampler_layers": sizes.interaction_stride,
        "query_len": "4,16,36,64,144", "window_size": 3, "tokenizer_model_max_length": 4096,
        "tokenizer_padding_side": "right", "unfreeze_mm_vision_tower": True, "use_mm_proj": True,
        "auto_map": {
            "AutoConfig": "configuration_fusion.FusionConfig",
            "AutoModelForCausalLM": f"modeling_fusion.{preset.decoder['architectures'][0]}",
        },
    }  # fmt: skip
    head_width = sizes.decoder_width // sizes.decoder_heads
    if preset.decoder is _PHI:
        factors = {"long_factor": _PHI_LONG, "short_factor": _PHI_SHORT}
        scaling = {name: values[: head_width // 2] for name, values in factors.items()}
        return config | {"rope_scaling": scaling | {"type": "longrope"}}
    return config | {"head_dim": head_width}


def released_shapes(preset: Preset) -> dict[str, Shape]:
    """Every tensor of a released checkpoint with its shape.

    Raises:
        ValueError: When the parameters are not as many as the released model has.
    """
    with torch.device("meta"):
        model = FusionForConditionalGeneration(_fusion_config(preset))
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    count = sum(map(math.prod, ours.values()))
    if preset.billions is not None and abs(count / (preset.billions * 1e9) - 1) > 0.002:
        raise ValueError(f"The model has {count:,} parameters, the released one {preset.billions} billion")
    unused = {f"{TOWER_PREFIX}post_layernorm.{part}": (preset.geometry.vision_width,) for part in ("weight", "bias")}
    return {_released_name(name): shape for name, shape in ours.items()} | unused


def _fusion_config(preset: Preset) -> FusionConfig:
    config = released_config(preset)
    if preset.tower != UNKNOWN_TOWER:
        return convert_config(config)
    # An unknown tower is read from the tensors, which are not written yet.
    fusion, sizes = convert_config(config | {"mm_vision_tower": SO400M}), preset.geometry
    fusion.vision_config = SiglipVisionConfig(
        hidden_size=sizes.vision_width, intermediate_size=sizes.vision_mlp, num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_heads, image_size=sizes.image_size, patch_size=sizes.patch_size,
        vision_use_head=False,
    )  # fmt: skip
    return fusion


def _released_name(ours: str) -> str:
    """The released name of one of our parameters: the loader's table of patterns, read backwards."""
    for released, own in RELEASED_KEYS.items():
        group = next(iter(re.findall(r"\(.*?\)", released)), "")
        pattern = re.escape(own).replace(r"\\1", group)
        if match := re.match(pattern, ours):
            literal = released.removeprefix("^").replace("\\.", ".")
            return literal.replace(group, match[1] if group else "") + ours[match.end() :]
    return ours


def folder_bytes(shapes: dict[str, Shape]) -> int:
    """Bytes that the weights take on disk."""
    return BYTES_PER_WEIGHT * sum(map(math.prod, shapes.values()))


def is_written(preset: Preset, folder: Path) -> bool:
    """Whether the folder holds this model already, as a whole."""
    config = folder / "config.json"
    return config.is_file() and json.loads(config.read_text()) == released_config(preset)


def write_released_folder(preset: Preset, folder: Path, shapes: dict[str, Shape], shard_bytes: int) -> None:
    """Write the model's folder; its `config.json` comes last and says that it is whole.

    Raises:
        ValueError: When the tokenizer files cannot be had.
    """
    folder.mkdir(parents=True)
    model_type = preset.decoder["model_type"]
    if preset.decoder is _PHI:
        _copy_phi_tokenizer(folder)
    else:
        _write_llama_tokenizer(folder)
    for name in FOREIGN_CODE:
        (folder / name).write_text('raise RuntimeError("foreign code of a model\'s folder was run")\n')
    _write_json(folder / "generation_config.json", _GENERATION[model_type] | {"transformers_version": "4.48.1"})
    _write_weights(folder, shapes, shard_bytes)
    _write_json(folder / "config.json", released_config(preset))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def _copy_phi_tokenizer(folder: Path) -> None:
    if not PHI_TOKENIZER.is_dir():
        raise ValueError(f"There is no tokenizer of Phi-3.5 in {PHI_TOKENIZER}: the tests of this repository bring it")
    shutil.copytree(PHI_TOKENIZER, folder, dirs_exist_ok=True)


def _write_llama_tokenizer(folder: Path) -> None:
    """Llama 3.1's tokenizer from Meta's `llama-models` package, with the two marks of released FUSION models."""
    try:
        import llama_models
    except ModuleNotFoundError as error:
        raise ValueError("Llama's tokenizer comes from the development tools: pip install llama-models") from error
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    named = {0: "begin_of_text", 1: "end_of_text", 6: "start_header_id", 7: "end_header_id", 9: "eot_id"}
    special = [f"<|{named.get(index, f'reserved_special_token_{index}')}|>" for index in range(256)]
    vocabulary = Path(llama_models.__file__).parent / "llama3" / "tokenizer.model"
    backend = TikTokenConverter(
        str(vocabulary), extra_special_tokens=[*special, "<vision_start>", "<vision_end>"]
    ).converted()
    bos, eos, pad = "<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>"
    start = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))])
    backend.post_processor = processors.Sequence([backend.post_processor, start])
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos, pad_token=pad).save_pretrained(
        folder
    )


def _write_weights(folder: Path, shapes: dict[str, Shape], shard_bytes: int) -> None:
    shards = _in_shards(shapes, shard_bytes)
    generator = torch.Generator().manual_seed(0)
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with (folder / name).open("wb") as file:
            _write_shard(file, shard, generator)
            os.fsync(file.fileno())  # or the disk would be busy while loading is timed
        places |= dict.fromkeys(shard, name)
    index = {"metadata": {"total_size": folder_bytes(shapes)}, "weight_map": dict(sorted(places.items()))}
    _write_json(folder / "model.safetensors.index.json", index)


def _in_shards(shapes: dict[str, Shape], shard_bytes: int) -> list[dict[str, Shape]]:
    shards: list[dict[str, Shape]] = [{}]
    for name, shape in shapes.items():
        if shards[-1] and folder_bytes(shards[-1] | {name: shape}) > shard_bytes:
            shards.append({})
        shards[-1][name] = shape
    return shards


def _write_shard(file: BinaryIO, shapes: dict[str, Shape], generator: torch.Generator) -> None:
    """A safetensors file, without ever holding its tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + BYTES_PER_WEIGHT * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name, shape in shapes.items():
        for piece in _weights(name, shape, generator):
            file.write(piece.view(torch.uint8).numpy().data)


def _weights(name: str, shape: Shape, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """The tensor in flat pieces: norms 1, biases 0, matrices random so that every part matters."""
    count = math.prod(shape)
    deviation = (count // shape[0]) ** -0.5
    for start in range(0, count, PIECE):
        piece = torch.empty(min(PIECE, count - start), dtype=torch.bfloat16)
        if len(shape) > 1:
            yield piece.normal_(0, deviation, generator=generator)
        else:
            yield piece.fill_(float(name.endswith("weight")))
