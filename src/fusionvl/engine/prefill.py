"""The prefill of one request, interrupted between layers so that running answers go on.

A prefill cannot be cut into chunks of tokens: latent tokens depend on the end of their question. But between two
layers of the encoder or the decoder anything else may be computed. Knows the model's layers; knows no requests.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BatchFeature, Cache, DynamicCache

from fusionvl.engine.engine import FusionEngine
from fusionvl.engine.feature_cache import ImageFeatures
from fusionvl.model.model_outputs import CACHE


@dataclass(frozen=True)
class Prefilled:
    """What a prefill leaves.

    Attributes:
        cache: Keys and values of the whole prompt, in full also where the decoder looks through a window.
        logits: (V,) of the first token.
        image_was_cached: Whether the picture's features were known already.
    """

    cache: Cache
    logits: torch.Tensor
    image_was_cached: bool


class Prefill:
    """Runs prefills in the thread that made it.

    Args:
        engine: Whose model and image features are used.
        between_layers: Called after every layer of a prefill, in the same thread; may use the model itself.
    """

    def __init__(self, engine: FusionEngine, between_layers: Callable[[], None]) -> None:
        self._engine = engine
        self._between_layers = between_layers
        self._thread: int | None = None  # that runs a prefill now
        inner = engine.model.model
        layers = [*inner.vision_tower.layers, *inner.language_model.layers]
        self._hooks = [layer.register_forward_hook(self._after_layer) for layer in layers]

    def close(self) -> None:
        """Take the interruptions out of the model."""
        for hook in self._hooks:
            hook.remove()

    def run(self, inputs: BatchFeature) -> Prefilled:
        """Run the prompt of one conversation, as `FusionEngine.encode` made it.

        Raises:
            ValueError: When the model cannot use it; with the reason.
        """
        computed: list[ImageFeatures] = []

        def compute(pixel_values: torch.Tensor) -> ImageFeatures:
            computed.append(self._engine.image_features(pixel_values))
            return computed[-1]

        self._thread = threading.get_ident()
        try:
            model_inputs = self._engine.with_features(inputs, compute)
            device = self._engine.model.device
            model_inputs |= {name: v.to(device) for name, v in model_inputs.items() if isinstance(v, torch.Tensor)}
            output = self._engine.model(
                **model_inputs, past_key_values=DynamicCache(), use_cache=True, logits_to_keep=1
            )
        finally:
            self._thread = None
        return Prefilled(getattr(output, CACHE), output.logits[0, -1], "pixel_values" in inputs and not computed)

    def _after_layer(self, *_: Any) -> None:
        """The model may be at work for other threads, too, and for the interruption itself: theirs go on."""
        if self._thread != threading.get_ident():
            return
        self._thread = None
        try:
            self._between_layers()
        finally:
            self._thread = threading.get_ident()
