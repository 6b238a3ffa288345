"""How well image and caption fit, by a CLIP or SigLIP model: the cosine of their embeddings.

Loads through transformers' Auto classes, one process a device. Best for ranking rows of one kind; the scale is each
model's own.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from fusionvl.synth.filters.filter import Filter, FilterModels, Scores, computed_by
from fusionvl.synth.filters.images import decoded
from fusionvl.synth.rows import Row
from fusionvl.synth.text_client import RequestError
from fusionvl.synth.workers import WorkError, Workers, devices_here

SIMILARITY_COLUMNS = {"similarity": float}

_BATCH = 16

Pair = tuple[Image.Image, str]


def similarity_filter(models: FilterModels) -> Filter:
    """The filter `similarity`.

    Raises:
        ValueError: If no model is given.
    """
    if models.similarity is None:
        raise ValueError("the filter 'similarity' needs a CLIP or SigLIP model: --similarity-model")
    devices = devices_here(["auto"])
    scorer = Similarity(models.similarity, devices)
    settings = computed_by("pillow", "torch", "transformers") | {"model": models.similarity}
    return Filter("similarity", SIMILARITY_COLUMNS, scorer.score, settings, scorer.close, devices)


class Similarity:
    """Scores rows with one model.

    Args:
        model: Hub name or folder of a CLIP or SigLIP model with its processor.
        devices: Where it runs.
    """

    def __init__(self, model: str, devices: Sequence[str]) -> None:
        self._workers: Workers[Pair, float] = Workers(partial(_load, model), devices, _BATCH)
        self.close = self._workers.close

    async def score(self, row: Row, folder: Path) -> Scores:
        """Scores the caption, or the description of a row without one, against the image.

        Returns:
            `similarity`, from -1 to 1; None where the image does not decode.

        Raises:
            RequestError: If the model raised an error on this row.
            ValueError: If there is no such model, or it does not embed both images and texts.
        """
        image = decoded(row, folder)
        if image is None:
            return {"similarity": None}
        try:
            return {"similarity": await self._workers((image, row.caption or row.description))}
        except WorkError as error:
            raise RequestError(str(error)) from error


def _load(name: str, device: str) -> Callable[[Sequence[Pair]], list[float]]:
    from transformers import AutoModel, AutoProcessor

    try:
        processor: Any = AutoProcessor.from_pretrained(name, backend="pil")
        model: Any = AutoModel.from_pretrained(name).to(device).eval()
    except OSError as error:
        raise ValueError(f"{name}: no model can be loaded from there ({error})") from error
    if not hasattr(model, "get_text_features") or not hasattr(model, "get_image_features"):
        raise ValueError(f"{name}: {type(model).__name__} does not embed images and texts; give CLIP or SigLIP")
    return partial(_cosines, model, processor)


def _cosines(model: Any, processor: Any, pairs: Sequence[Pair]) -> list[float]:
    import torch

    images, texts = zip(*pairs, strict=True)
    # SigLIP was trained on padded texts only.
    inputs = processor(
        images=list(images), text=list(texts), padding="max_length", truncation=True, return_tensors="pt"
    ).to(model.device)
    pixels = inputs.pop("pixel_values")
    with torch.inference_mode():
        seen = model.get_image_features(pixel_values=pixels).pooler_output
        said = model.get_text_features(**inputs).pooler_output
    cosines: list[float] = torch.nn.functional.cosine_similarity(seen, said).float().tolist()
    return cosines
