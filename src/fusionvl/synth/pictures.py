"""The steps that bring a row's image: a procedural scene, with all that is known of it, or a drawing of a description.

Scenes come from the renderer, drawings from any text-to-image pipeline of diffusers, both in worker processes. Images
are files `images/00012/ID.jpg` of the run folder, each there as a whole or not at all. A drawing of one colour, as a
broken model or its safety checker gives, is made once more with another seed and then rejected. diffusers and torch
are imported in the workers only.
"""

import asyncio
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from PIL import Image

from fusionvl.data.extras import import_extra
from fusionvl.run_folder import write_whole
from fusionvl.synth.kinds.written import pictures_of
from fusionvl.synth.recipe import Diffusion, Procedural
from fusionvl.synth.rows import Row, seed_of
from fusionvl.synth.scene_sample import scene_sample
from fusionvl.synth.scenes.drawings import Drawings
from fusionvl.synth.scenes.things import Split
from fusionvl.synth.workers import Compute, WorkError, Workers

IMAGE_FOLDER = "images"
_DRAWN, _SCENE = "image", "scene"
_FLAT = 8  # largest difference of any channel, in 256 levels, within an image that shows nothing
_QUALITY = 92
_SCENES_AT_ONCE = 8


# --- Scenes ---


class SceneStep:
    """Brings description and facts of a scene, and questions and image where the recipe says so.

    Args:
        folder: The run folder.
        with_turns: Whether questions come from the scene.
        settings: How its image is drawn; None when something else draws.
    """

    def __init__(self, folder: Path, *, with_turns: bool, settings: Procedural | None) -> None:
        self._folder = folder
        self._with_turns = with_turns
        self._is_drawn = settings is not None
        processes = 1 if settings is None else settings.processes
        self._workers: Workers[Row, tuple[Row, bytes | None]] = Workers(
            partial(_scene_maker, settings, with_turns), ["cpu"] * processes, _SCENES_AT_ONCE
        )
        self.close = self._workers.close

    def is_done(self, row: Row) -> bool:
        """Whether the row has all that this step brings."""
        missing_turns = self._with_turns and not row.turns
        missing_image = self._is_drawn and row.image is None
        return bool(row.description) and not missing_turns and not missing_image

    async def run(self, row: Row, shard: int) -> Row:
        """Make the scene of a row."""
        row = replace(row, attempts=row.attempts + 1, models=row.models | {_SCENE: "procedural"})
        try:
            row, image = await self._workers(row)
        except WorkError as error:
            return row.failed(f"{_SCENE}: {error}")
        return row if image is None else await _with_image(row, self._folder, shard, image)


def _scene_maker(
    settings: Procedural | None, with_turns: bool, _device: str
) -> Compute[Row, tuple[Row, bytes | None]]:
    size, drawings = (None, None) if settings is None else (settings.size, open_drawings(settings))
    return lambda rows: [make_scene(row, size, with_turns, drawings) for row in rows]


def open_drawings(settings: Procedural) -> Drawings | None:
    """The drawings that a recipe names, if any.

    Raises:
        ValueError: When they are not there.
    """
    return None if settings.drawings is None else Drawings(settings.drawings, settings.artists)


def make_scene(
    row: Row, size: int | None, with_turns: bool, drawings: Drawings | None = None
) -> tuple[Row, bytes | None]:
    """The scene of a row. Its number is the whole id: any shorter one would repeat among millions.

    Args:
        row: Of which kind and split the scene is.
        size: Pixels of a side; None when it is not to be drawn.
        with_turns: Whether questions come from the scene.
        drawings: What shows things that artists have drawn.

    Returns:
        The row with description and facts, and questions; and the image as JPEG.
    """
    sample = scene_sample(row.kind, int(row.id, 16), split=cast(Split, row.split))
    turns = sample.turns if with_turns else row.turns
    row = replace(row, description=sample.description, turns=turns, truth=sample.truth)
    return row, None if size is None else as_jpeg(sample.draw(size, drawings))


# --- Drawings ---


class Drawing(NamedTuple):
    """An image to draw: what it shows, and the seed of its noise."""

    prompt: str
    seed: int


class DiffusionStep:
    """Brings the image of a description; two side by side where it describes two.

    Args:
        folder: The run folder.
        settings: Which pipeline, where and how; one process per device holds it.
    """

    def __init__(self, folder: Path, settings: Diffusion) -> None:
        self._folder = folder
        self._model = settings.model
        self._workers: Workers[Drawing, Image.Image] = Workers(
            partial(load_pipeline, settings), settings.devices, settings.batch_size
        )
        self.close = self._workers.close

    def is_done(self, row: Row) -> bool:
        """Whether the row has an image."""
        return row.image is not None

    async def run(self, row: Row, shard: int) -> Row:
        """Have a row's description drawn."""
        row = replace(row, models=row.models | {_DRAWN: self._model})
        images = []
        for number, prompt in enumerate(pictures_of(row.description)):
            row, image = await self._draw(row, prompt, f"{_DRAWN}.{number}" if number else _DRAWN)
            if image is None:
                return row
            images.append(image)
        return await _with_image(row, self._folder, shard, as_jpeg(side_by_side(images)))

    async def _draw(self, row: Row, prompt: str, name: str) -> tuple[Row, Image.Image | None]:
        for attempt in range(2):
            seed = seed_of(row.id, name, attempt)
            row = replace(row, attempts=row.attempts + 1, seeds=row.seeds | {name: seed})
            try:
                image = await self._workers(Drawing(prompt, seed))
            except WorkError as error:
                return row.failed(f"{name}: {error}"), None
            if not is_flat(image):
                return row, image
        return row.rejected(f"{name}: the image is of one colour, twice"), None


def load_pipeline(settings: Diffusion, device: str) -> Callable[[Sequence[Drawing]], list[Image.Image]]:
    """Load a pipeline onto a device; what is returned draws batches.

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
    return partial(_draw_batch, settings, pipeline)


def _draw_batch(settings: Diffusion, pipeline: Any, drawings: Sequence[Drawing]) -> list[Image.Image]:
    import torch

    arguments: dict[str, Any] = {"width": settings.width, "height": settings.height}
    if settings.steps is not None:
        arguments["num_inference_steps"] = settings.steps
    if settings.guidance is not None:
        arguments["guidance_scale"] = settings.guidance
    # On the CPU on purpose: the same noise whatever the device.
    generators = [torch.Generator("cpu").manual_seed(drawing.seed) for drawing in drawings]
    return list(pipeline([drawing.prompt for drawing in drawings], generator=generators, **arguments).images)


# --- Images ---


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


def as_jpeg(image: Image.Image) -> bytes:
    """An image as JPEG, colours at full resolution: thin coloured shapes would bleed otherwise."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


async def _with_image(row: Row, folder: Path, shard: int, image: bytes) -> Row:
    """The row with its image, which is written into the run folder; others are made while the disk is busy.

    Raises:
        CannotWriteError: When the disk is full or the place cannot be written.
    """
    path = image_folder(folder, shard) / f"{row.id}.jpg"
    await asyncio.to_thread(write_whole, path, image)
    return replace(row, image=path.relative_to(folder).as_posix())


def image_folder(folder: Path, shard: int) -> Path:
    """Where a run folder keeps the images of a shard."""
    return folder / IMAGE_FOLDER / f"{shard:05d}"
