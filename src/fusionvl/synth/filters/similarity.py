"""How well image and caption fit, by a CLIP or SigLIP model: the cosine of their embeddings.

Loads through transformers' Auto classes. Best for ranking rows of one kind; the scale is each model's own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fusionvl.synth.filters.columns import Columns, Score
from fusionvl.synth.rows import Row

SIMILARITY_COLUMNS = ("similarity",)

_BATCH = 16


class Similarity:
    """Scores rows with one model, on the GPU if there is one.

    Args:
        model: Hub name or folder of a CLIP or SigLIP model with its processor.

    Raises:
        OSError: If there is no such model.
        ValueError: If the model does not embed both images and texts.
    """

    def __init__(self, model: str) -> None:
        import torch
        from transformers import AutoModel, AutoProcessor

        self._processor: Any = AutoProcessor.from_pretrained(model, backend="pil")
        self._model: Any = AutoModel.from_pretrained(model).eval()
        self._model.to("cuda" if torch.cuda.is_available() else "cpu")
        if not hasattr(self._model, "get_text_features") or not hasattr(self._model, "get_image_features"):
            raise ValueError(
                f"{model}: {type(self._model).__name__} does not embed images and texts; give CLIP or SigLIP"
            )

    def score(self, rows: Sequence[Row], folder: Path) -> Columns:
        """Scores the caption, or the description of a row without one, against the image.

        Returns:
            `similarity`, from -1 to 1; None where the image does not decode.
        """
        scores: list[Score] = [None] * len(rows)
        opened = [(number, image) for number, row in enumerate(rows) if (image := _opened(row, folder)) is not None]
        for start in range(0, len(opened), _BATCH):
            batch = opened[start : start + _BATCH]
            texts = [rows[number].caption or rows[number].description for number, _ in batch]
            cosines = self._cosines([image for _, image in batch], texts)
            for (number, _), cosine in zip(batch, cosines.tolist(), strict=True):
                scores[number] = cosine
        return {"similarity": scores}

    def _cosines(self, images: list[Image.Image], texts: list[str]) -> NDArray[np.float32]:
        import torch

        # SigLIP was trained on padded texts only.
        inputs = self._processor(images=images, text=texts, padding="max_length", truncation=True, return_tensors="pt")
        inputs = inputs.to(self._model.device)
        pixels = inputs.pop("pixel_values")
        with torch.inference_mode():
            image = self._model.get_image_features(pixel_values=pixels).pooler_output
            text = self._model.get_text_features(**inputs).pooler_output
        cosines: NDArray[np.float32] = torch.nn.functional.cosine_similarity(image, text).float().cpu().numpy()
        return cosines


def _opened(row: Row, folder: Path) -> Image.Image | None:
    if row.image is None:
        return None
    try:
        with Image.open(folder / row.image) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return None
