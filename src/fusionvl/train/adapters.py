"""LoRA in a stage: adapters put into a model, written apart, and merged into an ordinary model again.

The adapters sit inside the FUSION itself, so it keeps its class, its names and its trainer. Under them the weights are
frozen; parts without adapters are trained in full or frozen by their learning rates, as ever. Knows models and the
recipe's `lora` block; the 4-bit layers are in `four_bit.py`.
"""

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from fusionvl.data.extras import import_extra
from fusionvl.model import FusionForConditionalGeneration, lora_targets
from fusionvl.train.checkpoints import trained_weights
from fusionvl.train.config import Lora, StageConfig
from fusionvl.train.model import is_adapter, part_of

ADAPTER = "default"  # PEFT's name for the only one
ADAPTER_FILE = "adapter_model.safetensors"  # what `PeftModel.from_pretrained` looks for


def check_adapters(stages: Sequence[StageConfig], in_bfloat16: bool) -> None:
    """Refuse before the run what could not be trained.

    Args:
        stages: The stages to run.
        in_bfloat16: Whether they compute in bfloat16.

    Raises:
        ModuleNotFoundError: When a package is missing, with the command that installs it.
        ValueError: When weights are to be held in bfloat16 and the run computes in float32.
    """
    for stage in stages:
        if stage.lora is None:
            continue
        import_extra("peft", extra="train", needed_for="lora")
        if stage.lora.base == "nf4":
            import_extra("bitsandbytes", extra="quantize", needed_for="lora with base: nf4")
        if stage.lora.base == "bfloat16" and not in_bfloat16:
            raise ValueError(
                f"Stage {stage.name}: lora.base is bfloat16, and this run computes in float32: set "
                f"precision: bfloat16, or lora.base: float32"
            )


def add_adapters(model: FusionForConditionalGeneration, lora: Lora) -> None:
    """Put LoRA adapters into a model, drawn from torch's random state; they change no output before the first step.

    Raises:
        ValueError: When interaction layers are to be adapted and there are none.
    """
    peft = import_extra("peft", extra="train", needed_for="lora")
    targets = lora_targets(model.config, mapping=lora.mapping, interaction_layers=lora.interaction_layers)
    if lora.base == "nf4":
        _quantize_decoder(model)
    config = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
    peft.inject_adapter_in_model(config, model, ADAPTER)
    if lora.base == "bfloat16":
        for name in _decoder_layers(model):
            model.get_submodule(name).get_base_layer().to(torch.bfloat16)


def merge_adapters(model: FusionForConditionalGeneration) -> None:
    """Add the adapters to the weights under them, in float32, and take them out: the model is an ordinary one again.

    4-bit weights become the floats they stood for: the adapters were trained beside those, so the merged model
    computes what the trained one did. Beside the weights from before quantization they would make another model.
    """
    for name, layer in _adapted_layers(model).items():
        plain = _in_float32(layer.get_base_layer())
        plain.weight.data += layer.get_delta_weight(ADAPTER)
        model.set_submodule(name, plain)
    del model.peft_config


def save_adapter(model: FusionForConditionalGeneration, folder: Path) -> None:
    """Write what was trained as an adapter for `PeftModel.from_pretrained(base, folder)`.

    Parts that were trained in full are in it under `modules_to_save`: without them the adapters would be of no use.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trained = trained_weights(model)
    parts = {part_of(name) for name in trained if not is_adapter(name)}
    whole = [name for name, _ in model.model.named_modules() if part_of(name) in parts and _is_whole(name)]
    config = copy.deepcopy(model.peft_config[ADAPTER])
    config.modules_to_save = whole or None
    config.inference_mode = True
    config.save_pretrained(folder)
    prefixed = {f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": tensor for name, tensor in trained.items()}
    save_file(prefixed, folder / ADAPTER_FILE, metadata={"format": "pt"})


def _is_whole(module_name: str) -> bool:
    """Whether a module is what PEFT can save of a part; it takes no list, so interaction layers come one by one."""
    return module_name.count(".") == (1 if module_name.startswith("interaction_layers") else 0)


def _adapted_layers(model: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


def _decoder_layers(model: FusionForConditionalGeneration) -> list[str]:
    """Names of the decoder's projections, the layers that `base` is about."""
    pattern = re.compile(lora_targets(model.config))
    return [name for name, _ in model.named_modules() if pattern.fullmatch(name)]


def _quantize_decoder(model: FusionForConditionalGeneration) -> None:
    from fusionvl.train.four_bit import FrozenLinear4bit  # needs an extra that most runs do without

    for name in _decoder_layers(model):
        model.set_submodule(name, FrozenLinear4bit(model.get_submodule(name)))


def _in_float32(layer: Any) -> Any:
    return layer.dequantized() if hasattr(layer, "dequantized") else layer.float()
