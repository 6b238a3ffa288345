"""The parts of a model as training sees them: what is trained, what is frozen, how fast each part learns.

Knows names of parameters and learning rates; knows no optimizer.
"""

from collections import Counter

from torch import nn

from fusionvl.train.config import LearningRates


def part_of(parameter_name: str) -> str:
    """The part a parameter belongs to, as `LearningRates` names it."""
    name = parameter_name.removeprefix("model.")
    if name.startswith(("vision_to_text.", "text_to_vision.")):
        return "mapping"
    if name.startswith(("language_model.", "lm_head.")):
        return "decoder"
    return name.split(".", 1)[0]


def is_adapter(parameter_name: str) -> bool:
    """Whether a parameter belongs to a LoRA adapter."""
    return ".lora_" in parameter_name


def freeze(model: nn.Module, rates: LearningRates) -> None:
    """Freeze parts whose learning rate is 0, and what is under adapters."""
    adapted = _adapted_parts(model)
    for name, parameter in model.named_parameters():
        part = part_of(name)
        parameter.requires_grad_(getattr(rates, part) > 0 and (is_adapter(name) or part not in adapted))


def describe(model: nn.Module, rates: LearningRates) -> str:
    """A table of parts: their parameters, whether they are trained, how fast."""
    adapted, counts = _adapted_parts(model), Counter[str]()
    for name, parameter in model.named_parameters():
        counts[f"{part_of(name)}, adapters" if is_adapter(name) else part_of(name)] += num_weights(parameter)
    lines = [f"{'part':<30}{'parameters':>14}  {'state':<8}learning rate"]
    for part, rate in vars(rates).items():
        rows = {part: 0.0, f"{part}, adapters": rate} if part in adapted else {part: rate}
        for row, own in rows.items():
            lines.append(f"{row:<30}{counts[row]:>14,}  {'trained' if own > 0 else 'frozen':<8}{own:g}")
    return "\n".join([*lines, f"{'all':<30}{counts.total():>14,}"])


def _adapted_parts(model: nn.Module) -> set[str]:
    return {part_of(name) for name, _ in model.named_parameters() if is_adapter(name)}


def num_weights(parameter: nn.Parameter) -> int:
    """How many weights a parameter stands for; one in 4 bits packs two into a byte."""
    packed = getattr(parameter, "quant_state", None)
    return parameter.numel() if packed is None else packed.shape.numel()
