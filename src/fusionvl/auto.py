"""Makes transformers' Auto classes know FUSION: `AutoModelForImageTextToText`, `AutoProcessor`, `pipeline`, ...

Import it beside them, in any order: `import fusionvl.auto`. Every public name of the package imports it, too. It takes
as long as importing transformers' models does, which is why `import fusionvl` alone does not. Knows which class goes
under which Auto class, nothing else.
"""

from transformers import AutoImageProcessor, AutoProcessor

from fusionvl.model import FusionConfig  # registers itself and the models
from fusionvl.processing import FusionImageProcessorPil, FusionProcessor

AutoImageProcessor.register(FusionConfig, image_processor_classes={"pil": FusionImageProcessorPil})
AutoProcessor.register(FusionConfig, FusionProcessor)
