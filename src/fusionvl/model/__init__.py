"""The model room: the paper's architecture, one idea per file. Knows tensors, not tokenizers, data files or HTTP.

Importing it registers the configuration and the models with transformers' Auto classes.
"""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM

from fusionvl.model.configuration import FusionConfig
from fusionvl.model.lora import lora_targets
from fusionvl.model.modeling import FusionForConditionalGeneration, FusionModel
from fusionvl.model.released import RELEASED_CONFIG_CLASSES

AutoConfig.register(FusionConfig.model_type, FusionConfig)
for _released in RELEASED_CONFIG_CLASSES:
    AutoConfig.register(_released.model_type, _released)
AutoModel.register(FusionConfig, FusionModel)
AutoModelForImageTextToText.register(FusionConfig, FusionForConditionalGeneration)
AutoModelForMultimodalLM.register(FusionConfig, FusionForConditionalGeneration)

__all__ = ["FusionConfig", "FusionForConditionalGeneration", "FusionModel", "lora_targets"]
