"""LoRA in a stage: adapters put into a model, written apart, and added to the weights under them at the end.

The adapters sit inside the FUSION itself, so it keeps its class and its names. Under them the weights are frozen;
parts without adapters are trained in full or frozen by their learning rates, as ever. Knows models and the recipe's
`lora` block; the 4-bit layers are in `four_bit.py`.
"""

import copy
import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from fusionvl.data.extras import import_extra
from fusionvl.model import FusionForConditionalGeneration, lora_targets
from fusionvl.train.config import Lora, StageConfig
from fusionvl.train.freezing import is_adapter, part_of
from fusionvl.train.sharding import fill

ADAPTER = "default"  # PEFT's name for the only one
ADAPTER_FILE = "adapter_model.safetensors"  # what `PeftModel.from_pretrained` looks for
_BASE = ".base_layer."  # where PEFT puts the layer under an adapter
Weights = dict[str, torch.Tensor]


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


def add_adapters(
    model: FusionForConditionalGeneration, lora: Lora, read: Callable[[str], torch.Tensor] | None = None
) -> None:
    """Put LoRA adapters into a model; they are on the meta device until `draw_adapters` has values for them.

    Args:
        model: Its weights may be on the meta device, too.
        lora: The recipe's block.
        read: Gives a weight by its name where it is to be, for `base: nf4`; by default the model's own.

    Raises:
        ValueError: When interaction layers are to be adapted and there are none.
    """
    peft = import_extra("peft", extra="train", needed_for="lora")
    targets = lora_targets(model.config, mapping=lora.mapping, interaction_layers=lora.interaction_layers)
    decoder = re.compile(lora_targets(model.config))
    under = {name: module for name, module in model.named_modules() if decoder.fullmatch(name)}
    for name, layer in under.items():
        if lora.base == "nf4":
            _quantize(model, name, read or model.get_parameter)
        elif lora.base == "bfloat16":
            layer.to(torch.bfloat16)
    config = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
    peft.inject_adapter_in_model(config, model, ADAPTER, low_cpu_mem_usage=True)
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            parameter.data = parameter.data.float()


def _quantize(model: nn.Module, name: str, read: Callable[[str], torch.Tensor]) -> None:
    from fusionvl.train.four_bit import FrozenLinear4bit  # needs an extra that most runs do without

    bias: Any = model.get_submodule(name).bias
    model.set_submodule(name, FrozenLinear4bit(read(f"{name}.weight").detach(), bias))


@torch.no_grad()
def draw_adapters(model: nn.Module, seed: int) -> None:
    """Give adapters the values they start with, as PEFT would; they change no output before the first step.

    Seed and name decide them, so any number of processes that share the model draws the same.
    """
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            whole = torch.zeros(parameter.shape)
            if ".lora_A." in name:
                digest = hashlib.sha256(f"adapter/{seed}/{name}".encode()).digest()
                generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
                nn.init.kaiming_uniform_(whole, a=5**0.5, generator=generator)
            fill(parameter, whole)


def file_name(parameter_name: str) -> str:
    """The name that a parameter has in a model without adapters."""
    return parameter_name.replace(_BASE, ".")


def merged(model: nn.Module, weights: Weights) -> Weights:
    """The weights of an ordinary model that computes what a model with adapters does, in float32.

    4-bit weights become the floats they stood for: the adapters were trained beside those. Added to the weights from
    before quantization they would make another model.

    Args:
        model: With adapters; only its structure is looked at, and its 4-bit weights.
        weights: All of its weights, whole and on the CPU.
    """
    found = {file_name(name): weight.float() for name, weight in weights.items() if not is_adapter(name)}
    for name, layer in model.named_modules():
        if not hasattr(layer, "lora_A"):
            continue
        base: Any = layer.get_base_layer()
        there, back = (weights[f"{name}.lora_{matrix}.{ADAPTER}.weight"] for matrix in "AB")
        weight = base.dequantized().cpu() if hasattr(base, "dequantized") else found[f"{name}.weight"]
        found[f"{name}.weight"] = weight + layer.scaling[ADAPTER] * (back @ there)
    return found


def save_adapter(model: FusionForConditionalGeneration, weights: Weights, folder: Path) -> None:
    """Write what was trained as an adapter for `PeftModel.from_pretrained(base, folder)`.

    Parts that were trained in full are in it under `modules_to_save`: without them the adapters would be of no use.

    Args:
        model: With adapters.
        weights: All of its weights, whole and on the CPU.
        folder: To write to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    parts = {part_of(name) for name in trained if not is_adapter(name)}
    whole = [name for name, _ in model.model.named_modules() if part_of(name) in parts and _is_whole(name)]
    config = copy.deepcopy(model.peft_config[ADAPTER])
    config.modules_to_save = whole or None
    config.inference_mode = True
    config.save_pretrained(folder)
    named = {f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": weights[name].contiguous() for name in trained}
    save_file(named, folder / ADAPTER_FILE, metadata={"format": "pt"})


def _is_whole(module_name: str) -> bool:
    """Whether a module is what PEFT can save of a part; it takes no list, so interaction layers come one by one."""
    return module_name.count(".") == (1 if module_name.startswith("interaction_layers") else 0)
