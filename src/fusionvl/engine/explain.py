"""Looks inside one answer: where the interaction layers attended, and how the guide moved the patch features.

Runs the prompt once more with a list that the interaction layers write to; nothing stays on the model. Knows arrays
and where they lie on the picture; drawing them is `explain_drawing.py`'s.

Shapes: n latent tokens a side, w positions of a window a side, g patches of a view a side.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from fusionvl.engine.engine import DEFAULT_MAX_NEW_TOKENS, FusionEngine, conversation
from fusionvl.model import FusionConfig, FusionForConditionalGeneration
from fusionvl.model.interaction import InteractionRecord
from fusionvl.processing.image_loading import ImageSource, load_image


@dataclass(frozen=True, eq=False)
class LayerView:
    """What one interaction layer did for the question.

    Attributes:
        decoder_layer: Index of the decoder layer it follows.
        attention: (n, n, w, w) float32; of the latent token in row i and column j, its attention over its window, mean
            of the heads. Sums to 1 over the window.
        update: (n, n) float32; length of what was added to each latent token, divided by the token's own length.
    """

    decoder_layer: int
    attention: np.ndarray
    update: np.ndarray

    @property
    def attention_grid(self) -> np.ndarray:
        """(n * w, n * w): the windows side by side, as they lie on the picture."""
        return self.attention.transpose(0, 2, 1, 3).reshape(self.attention.shape[0] * self.attention.shape[2], -1)


@dataclass(frozen=True, eq=False)
class Explanation:
    """What was seen inside the model while it read one question.

    A span is a (start, end) in fractions of the picture's side; spans serve rows and columns alike.

    Attributes:
        image: The picture, upright RGB.
        question: As asked.
        answer: What the model answered.
        layers: One view for each interaction layer, in their order; empty when there are no latent tokens.
        position_spans: (n * w, 2) where the rows of an `attention_grid` lie. Neighbours overlap where the windows do
            not divide the global map evenly.
        latent_spans: (n, 2) where the rows of an `update` lie.
        guidance_shift: (g, g) float32 cosine distance of each patch of the base view, as the decoder gets it, with
            the question as guide from the same patch with an empty guide; None for a model without guidance.
        patch_spans: (g, 2) where the rows of `guidance_shift` lie.
        missing: Sentences on what the model does not have, and so is not here.
    """

    image: Image.Image
    question: str
    answer: str
    layers: list[LayerView]
    position_spans: np.ndarray
    latent_spans: np.ndarray
    guidance_shift: np.ndarray | None
    patch_spans: np.ndarray
    missing: list[str] = field(default_factory=list)

    def draw(self) -> Image.Image:
        """The whole explanation as one picture."""
        from fusionvl.engine.explain_drawing import draw

        return draw(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels, as JSON values; grids are lists of rows."""
        grids = ("position_spans", "latent_spans", "guidance_shift", "patch_spans")
        return {
            "question": self.question,
            "answer": self.answer,
            "image_size": list(self.image.size),
            "layers": [
                {
                    "decoder_layer": layer.decoder_layer,
                    "attention": layer.attention_grid.tolist(),
                    "update": layer.update.tolist(),
                }
                for layer in self.layers
            ],
            **{name: None if (grid := getattr(self, name)) is None else grid.tolist() for name in grids},
            "missing": self.missing,
        }


def explain(
    engine: FusionEngine,
    image: ImageSource,
    question: str,
    *,
    num_latents: int | None = None,
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
) -> Explanation:
    """Answer a question about an image and look inside while it is read. Threads may share the engine.

    Args:
        engine: The model with its processor.
        image: A path, bytes or PIL image.
        question: Plain text.
        num_latents: Latent tokens of the question; None is the processor's default.
        max_new_tokens: Bound on the answer.

    Raises:
        ValueError: When the image or the question cannot be used, or does not fit the context; with the reason.
    """
    picture = load_image(image)
    messages = conversation(picture, question)
    answer = engine.answer([messages], num_latents=num_latents, max_new_tokens=max_new_tokens)[0]
    batch = engine.encode([messages], num_latents)
    inputs = {name: tensor.to(engine.model.device) for name, tensor in batch.items()}
    inputs["pixel_values"] = inputs["pixel_values"].to(engine.model.dtype)
    records: list[InteractionRecord] = []
    with torch.inference_mode():
        engine.model(**inputs, interaction_records=records, logits_to_keep=1, use_cache=False)
        shift = guidance_shift(
            engine.model, inputs["pixel_values"], inputs["guide_input_ids"], inputs["guide_attention_mask"]
        )
    config = engine.model.config
    views = [
        _layer_view(index, record, config.window_size)
        for index, record in zip(config.interaction_layer_indices, records, strict=bool(records))
    ]
    side = views[0].update.shape[0] if views else 0
    return Explanation(
        image=picture,
        question=question,
        answer=answer.text,
        layers=views,
        position_spans=window_position_spans(config, side),
        latent_spans=_joined(window_position_spans(config, side), config.window_size),
        guidance_shift=shift,
        patch_spans=_patch_pixels(config) / config.vision_config.image_size,
        missing=_missing(config, side),
    )


def guidance_shift(
    model: FusionForConditionalGeneration,
    pixel_values: torch.Tensor,
    guide_input_ids: torch.Tensor,
    guide_attention_mask: torch.Tensor,
) -> np.ndarray | None:
    """How far the guide moves each patch of one image's base view.

    Args:
        model: Any FUSION.
        pixel_values: (1, views, 3, H, W).
        guide_input_ids: (1, G).
        guide_attention_mask: (1, G).

    Returns:
        (g, g) float32 cosine distances between the patches' features, as the decoder gets them, with and without the
        guide; None when the model takes no guide.
    """
    if not model.config.use_guidance:
        return None
    guided = model.model.encode_images(pixel_values, guide_input_ids, guide_attention_mask, with_global_map=False)
    alone = model.model.encode_images(pixel_values, with_global_map=False)
    directions = (torch.nn.functional.normalize(view.patches[0].float(), dim=-1) for view in (guided, alone))
    # Half the squared distance of unit vectors: the cosine distance, without the rounding of one minus nearly one.
    shift = (next(directions) - next(directions)).square().sum(-1) / 2
    return shift.view(model.config.patch_grid, -1).cpu().numpy()


def window_position_spans(config: FusionConfig, side: int) -> np.ndarray:
    """Where the positions of the latent tokens' windows lie along one side of the picture.

    They are the cells of the adaptive pooling that makes `side * window_size` positions of the global map, each with
    the pixels its map positions were cut from. A patch size that does not divide a view leaves strips that no position
    covers: the encoder does not see them.

    Args:
        config: The model's.
        side: Latent tokens along one side.

    Returns:
        (side * window_size, 2) starts and ends, in fractions of the picture's side.
    """
    pixels = config.vision_config.image_size
    tile = _patch_pixels(config)
    of_map = np.concatenate([tile, tile + pixels])  # (2g, 2), in pixels of the four tiles together
    cells, size = side * config.window_size, len(of_map)
    spans = [(of_map[i * size // cells, 0], of_map[-(-(i + 1) * size // cells) - 1, 1]) for i in range(cells)]
    return np.array(spans).reshape(-1, 2) / (2 * pixels)


def _patch_pixels(config: FusionConfig) -> np.ndarray:
    """(g, 2) whole numbers: first pixel of each patch of a view, and the one behind its last."""
    starts = np.arange(config.patch_grid) * config.vision_config.patch_size
    return np.stack([starts, starts + config.vision_config.patch_size], axis=1)


def _joined(spans: np.ndarray, count: int) -> np.ndarray:
    """Spans that each join `count` neighbours."""
    return np.stack([spans[::count, 0], spans[count - 1 :: count, 1]], axis=1)


def _layer_view(decoder_layer: int, record: InteractionRecord, window_size: int) -> LayerView:
    """The first and only question's part of a record."""
    attention = record.attention[0].float().mean(dim=1)  # (L, w * w)
    side = round(attention.shape[0] ** 0.5)
    update = record.update_norm[0] / record.latent_norm[0]
    return LayerView(
        decoder_layer,
        attention.view(side, side, window_size, window_size).cpu().numpy(),
        update.view(side, side).cpu().numpy(),
    )


def _missing(config: FusionConfig, side: int) -> list[str]:
    missing = []
    if not config.uses_latents:
        missing.append("The model has no interaction layers: there is no attention of latent tokens to show.")
    elif side == 0:
        missing.append("The question has no latent tokens: the interaction layers had nothing to do.")
    if not config.use_guidance:
        missing.append("The model takes no guide: the question does not reach the patch features.")
    return missing
