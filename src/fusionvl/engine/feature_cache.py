"""What a model computes from an image alone, kept for the next question about the same image.

A least-recently-used cache, bounded in bytes and keyed by the image's content. Knows tensors' sizes and pixels; knows
no questions.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fusionvl.model.vision_encoder import PatchStates


@dataclass(frozen=True)
class ImageFeatures:
    """Features of one image that no question changes.

    Attributes:
        global_features: (1, 2g, 2g, D) from `FusionModel.get_global_features`, None for a model that needs no tiles.
        patch_states: From `FusionModel.get_patch_states`, None for a model whose patches see the guide from the start.
    """

    global_features: torch.Tensor | None
    patch_states: PatchStates | None

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        map_bytes = 0 if self.global_features is None else self.global_features.nbytes
        return map_bytes + (0 if self.patch_states is None else self.patch_states.num_bytes)


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
        self._entries: OrderedDict[str, ImageFeatures] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, pixel_values: torch.Tensor, compute: Callable[[torch.Tensor], ImageFeatures]) -> ImageFeatures:
        """Features of one image (1, 5, 3, H, W): remembered, or computed and remembered."""
        key = hashlib.blake2b(pixel_values.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
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
