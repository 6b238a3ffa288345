"""What a model computes from an image alone, kept for the next question about the same image.

A least-recently-used cache, bounded in bytes and keyed by the image's content, and batches that take from it. Knows
pixels and features; knows no questions.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import BatchFeature

from fusionvl.model import FusionForConditionalGeneration
from fusionvl.model.image_encoding import ImageFeatures


class FeatureCache:
    """Thread-safe LRU cache of `ImageFeatures`.

    Args:
        max_bytes: Upper bound on the features held; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[bytes, ImageFeatures] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, pixel_values: torch.Tensor, compute: Callable[[torch.Tensor], ImageFeatures]) -> ImageFeatures:
        """Features of one image (1, 5, 3, H, W): remembered, or computed and remembered."""
        key = hashlib.sha256(pixel_values.contiguous().numpy().data).digest()  # which processors have instructions for
        with self._lock:
            if key in self._entries:
                self.hits += 1
                self._entries.move_to_end(key)
                return self._entries[key]
            self.misses += 1
        features = compute(pixel_values)  # outside the lock: others' questions need not wait for this image
        with self._lock:
            if key not in self._entries and features.num_bytes <= self.max_bytes:
                self._entries[key] = features
                self.num_bytes += features.num_bytes
                while self.num_bytes > self.max_bytes:
                    self.num_bytes -= self._entries.popitem(last=False)[1].num_bytes
        return features


def with_features(inputs: BatchFeature, model: FusionForConditionalGeneration, cache: FeatureCache) -> dict[str, Any]:
    """A batch with its images' features on the model's device, known or computed now, in place of their tiles.

    Args:
        inputs: From the processor, on the CPU.
        model: Whose features they are.
        cache: Knows them, or learns them.
    """
    settings: dict[str, Any] = dict(inputs)  # `generate` moves them, once it has looked at them on the CPU
    if "pixel_values" not in inputs:
        return settings
    with torch.inference_mode():
        images = [cache.get(pixels, partial(_shared, model)) for pixels in inputs["pixel_values"].split(1)]
        features = ImageFeatures.cat(images)
    settings["pixel_values"] = settings["pixel_values"][:, -1:].to(model.device, model.dtype)
    given = {"global_features": features.global_features, "patch_states": features.patch_states}
    return settings | {name: value for name, value in given.items() if value is not None}


def _shared(model: FusionForConditionalGeneration, pixel_values: torch.Tensor) -> ImageFeatures:
    return model.shared_features(pixel_values.to(model.device, model.dtype))
