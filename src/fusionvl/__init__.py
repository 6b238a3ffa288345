"""FUSION: multimodal models in which vision and language meet everywhere (arXiv 2504.09925).

Public names are imported on first use, so that `import fusionvl` stays instant. The first of them, or
`import fusionvl.auto`, makes transformers' Auto classes know FUSION.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionvl.engine import FusionEngine
    from fusionvl.model import FusionConfig, FusionForConditionalGeneration, FusionModel, lora_targets
    from fusionvl.processing import FusionImageProcessorPil, FusionProcessor

__version__ = "0.1.0"
__all__ = [
    "FusionConfig",
    "FusionEngine",
    "FusionForConditionalGeneration",
    "FusionImageProcessorPil",
    "FusionModel",
    "FusionProcessor",
    "lora_targets",
]

_HOMES = {
    "FusionConfig": "fusionvl.model",
    "FusionEngine": "fusionvl.engine",
    "FusionForConditionalGeneration": "fusionvl.model",
    "FusionImageProcessorPil": "fusionvl.processing",
    "FusionModel": "fusionvl.model",
    "FusionProcessor": "fusionvl.processing",
    "lora_targets": "fusionvl.model",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fusionvl' has no attribute {name!r}")
    importlib.import_module("fusionvl.auto")
    return getattr(importlib.import_module(_HOMES[name]), name)
