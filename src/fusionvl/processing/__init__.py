"""Conversations and images -> what the model takes. Imports only `fusionvl.data`; knows no model.

Names are imported on first use: reading an image needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionvl.processing.collate import FusionCollator
    from fusionvl.processing.image_loading import load_image
    from fusionvl.processing.image_processing import FusionImageProcessorPil
    from fusionvl.processing.processing import FusionProcessor

_MODULE_OF_NAME = {
    "FusionCollator": "collate",
    "FusionImageProcessorPil": "image_processing",
    "FusionProcessor": "processing",
    "load_image": "image_loading",
}

__all__ = ["FusionCollator", "FusionImageProcessorPil", "FusionProcessor", "load_image"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF_NAME[name]}"), name)
