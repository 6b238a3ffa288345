"""The parts of a model as training sees them: what is trained, what is frozen, how fast each part learns."""

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


def freeze_and_describe(model: FusionForConditionalGeneration, rates: LearningRates) -> str:
    """Freeze every part whose learning rate is 0; return a table of parts, parameters, state and rate."""
    counts = dict.fromkeys(vars(rates), 0)
    for name, parameter in model.named_parameters():
        part = part_of(name)
        parameter.requires_grad_(getattr(rates, part) > 0)
        counts[part] += parameter.numel()
    rows = [f"{'part':<20}{'parameters':>14}  {'state':<8}learning rate"]
    for part, rate in vars(rates).items():
        rows.append(f"{part:<20}{counts[part]:>14,}  {'trained' if rate > 0 else 'frozen':<8}{rate:g}")
    return "\n".join([*rows, f"{'all':<20}{sum(counts.values()):>14,}"])
