"""The parts of a model as training sees them: what is trained, what is frozen, how fast each part learns."""

from torch import nn

from fusionvl.model import FusionForConditionalGeneration
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


def freeze_and_describe(model: FusionForConditionalGeneration, rates: LearningRates) -> str:
    """Freeze parts whose learning rate is 0 and what is under adapters; return a table of what learns how fast."""
    parameters = dict(model.named_parameters())
    adapted = {part_of(name) for name in parameters if is_adapter(name)}
    table: dict[str, tuple[int, float]] = {}
    for part, rate in vars(rates).items():
        table[part] = (0, 0.0 if part in adapted else rate)
        if part in adapted:
            table[f"{part}, adapters"] = (0, rate)
    for name, parameter in parameters.items():
        row = f"{part_of(name)}, adapters" if is_adapter(name) else part_of(name)
        count, rate = table[row]
        parameter.requires_grad_(rate > 0)
        table[row] = (count + num_weights(parameter), rate)
    lines = [f"{'part':<30}{'parameters':>14}  {'state':<8}learning rate"]
    for row, (count, rate) in table.items():
        lines.append(f"{row:<30}{count:>14,}  {'trained' if rate > 0 else 'frozen':<8}{rate:g}")
    return "\n".join([*lines, f"{'all':<30}{sum(count for count, _ in table.values()):>14,}"])


def num_weights(parameter: nn.Parameter) -> int:
    """How many weights a parameter stands for; one in 4 bits packs two into a byte."""
    packed = getattr(parameter, "quant_state", None)
    return parameter.numel() if packed is None else packed.shape.numel()
