"""The step of text-to-image models: draws what a description says, with any pipeline of diffusers.

One worker process per device holds the pipeline; each image has a generator of its own, seeded by its row. An image of
one colour, as a broken model or its safety checker gives, is drawn once more with another seed and then rejected.
Knows no prompts beyond the description. diffusers and torch are imported in the workers only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from fusionvl.data.extras import import_extra
from fusionvl.synth.answers import pictures_of
from fusionvl.synth.image_files import encode, keep_image
from fusionvl.synth.progress import Price
from fusionvl.synth.recipe import Diffusion
from fusionvl.synth.rows import Row, seed_of
from fusionvl.synth.workers import WorkError, Workers

_STEP = "image"
_FLAT = 8  # largest difference of any channel, in 256 levels, within an image that shows nothing


@dataclass(frozen=True, slots=True)
class DrawRequest:
    """One image to draw.

    Attributes:
        prompt: What it shows.
        seed: Of its noise.
    """

    prompt: str
    seed: int


class DiffusionStep:
    """Brings the image of a description; two side by side where it describes two.

    Args:
        folder: The run folder.
        settings: Which pipeline, where and how.
    """

    def __init__(self, folder: Path, settings: Diffusion) -> None:
        self.price = Price()
        self._folder = folder
        self._model = settings.model
        self._workers: Workers[DrawRequest, Image.Image] = Workers(
            partial(load, settings), settings.devices, settings.batch_size
        )

    def is_done(self, row: Row) -> bool:
        """Whether the row has an image."""
        return row.image is not None

    async def run(self, row: Row, shard: int) -> Row:
        """Have a row's description drawn."""
        row = replace(row, models=row.models | {_STEP: self._model})
        images = []
        for number, prompt in enumerate(pictures_of(row.description)):
            row, image = await self._draw(row, prompt, f"{_STEP}.{number}" if number else _STEP)
            if image is None:
                return row
            images.append(image)
        return replace(row, image=keep_image(self._folder, shard, row, encode(side_by_side(images))))

    async def _draw(self, row: Row, prompt: str, name: str) -> tuple[Row, Image.Image | None]:
        for attempt in range(2):
            seed = seed_of(row.id, name, attempt)
            row = replace(row, attempts=row.attempts + 1, seeds=row.seeds | {name: seed})
            try:
                image = await self._workers(DrawRequest(prompt, seed))
            except WorkError as error:
                return row.failed(f"{name}: {error}"), None
            if not is_flat(image):
                return row, image
        return row.rejected(f"{name}: the image is of one colour, twice"), None

    def close(self) -> None:
        """End the workers."""
        self._workers.close()


def is_flat(image: Image.Image) -> bool:
    """Whether an image shows nothing: black, or any other single colour."""
    extremes: Any = image.convert("RGB").getextrema()
    return all(high - low < _FLAT for low, high in extremes)


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Images in a row, with a white gap between them; a single one as it is."""
    if len(images) == 1:
        return images[0]
    gap = images[0].width // 32
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    joined = Image.new("RGB", (width, max(image.height for image in images)), "white")
    left = 0
    for image in images:
        joined.paste(image, (left, 0))
        left += image.width + gap
    return joined


def load(settings: Diffusion, device: str) -> Callable[[Sequence[DrawRequest]], list[Image.Image]]:
    """Load the pipeline onto a device; what is returned draws batches.

    Raises:
        ValueError: When the pipeline is not found or cannot be loaded.
        ModuleNotFoundError: When diffusers is not installed; says how to install it.
    """
    import torch

    diffusers = import_extra("diffusers", extra="synth", needed_for="Drawing with a text-to-image model")
    try:
        pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(
            settings.model, dtype=getattr(torch, settings.dtype)
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"{settings.model} cannot be loaded as a text-to-image pipeline: {error}") from error
    pipeline.set_progress_bar_config(disable=True)
    if settings.offload:
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.to(device)
    return partial(_draw, settings, pipeline)


def _draw(settings: Diffusion, pipeline: Any, requests: Sequence[DrawRequest]) -> list[Image.Image]:
    import torch

    arguments: dict[str, Any] = {"width": settings.width, "height": settings.height}
    if settings.steps is not None:
        arguments["num_inference_steps"] = settings.steps
    if settings.guidance is not None:
        arguments["guidance_scale"] = settings.guidance
    # On the CPU on purpose: the same noise whatever the device.
    generators = [torch.Generator("cpu").manual_seed(request.seed) for request in requests]
    prompts = [request.prompt for request in requests]
    return list(pipeline(prompts, generator=generators, **arguments).images)
