"""Which layers of a FUSION a LoRA adapter should sit on: a pattern for PEFT's `target_modules`.

Names alone are not enough: `q_proj` also stands in the vision encoder and in the interaction layers. Knows names of
modules; does not need PEFT.

    LoraConfig(target_modules=fusionvl.lora_targets(model.config), r=16)
"""

from fusionvl.model.configuration import FusionConfig

# Projections that stand apart, as in Llama, and fused ones, as in Phi-3: a decoder has some of these names.
_DECODER = r"language_model\.layers\.\d+\.(self_attn\.(q|k|v|qkv|o)_proj|mlp\.(gate|up|gate_up|down)_proj)"
_MAPPING = r"(vision_to_text|text_to_vision)\.fc[12]"
_INTERACTION = r"interaction_layers\.\d+\.(input_proj|context_proj|fc[12]|attention\.[qkvo]_proj)"


def lora_targets(config: FusionConfig, *, mapping: bool = False, interaction_layers: bool = False) -> str:
    """Pattern for all projections of the decoder, and on request for the linear layers of FUSION's own parts.

    Args:
        config: Of the model to adapt.
        mapping: Whether `vision_to_text` and `text_to_vision` get adapters, too.
        interaction_layers: Whether the interaction layers get adapters, too.

    Raises:
        ValueError: When interaction layers are asked for and the model has none; PEFT would not notice.
    """
    if interaction_layers and config.num_interaction_layers == 0:
        raise ValueError("interaction_layers=True, but the model has none (num_interaction_layers = 0)")
    parts = [_DECODER, *[_MAPPING] * mapping, *[_INTERACTION] * interaction_layers]
    return rf"(.*\.)?({'|'.join(parts)})"
