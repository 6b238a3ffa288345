"""The steps that bring a row's image: a procedural scene, with all that is known of it, or a drawing of a description.

Images are files `images/00012/ID.jpg` of the run folder, each there as a whole or not at all. A drawing of one colour,
as a broken model or its safety checker gives, is made once more with another seed and then rejected. Knows no backend
but by its workers.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from fusionvl.run_folder import write_whole
from fusionvl.synth.image_client import DrawRequest, as_jpeg, diffusion_workers, scene_workers
from fusionvl.synth.kinds.written import pictures_of
from fusionvl.synth.recipe import Diffusion, Procedural
from fusionvl.synth.rows import Row, seed_of
from fusionvl.synth.workers import WorkError

IMAGE_FOLDER = "images"
_DRAWN, _SCENE = "image", "scene"
_FLAT = 8  # largest difference of any channel, in 256 levels, within an image that shows nothing


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
        self._workers = scene_workers(settings, with_turns)

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
        return row if image is None else replace(row, image=await _keep(self._folder, shard, row, image))

    def close(self) -> None:
        """End the workers."""
        self._workers.close()


class DiffusionStep:
    """Brings the image of a description; two side by side where it describes two.

    Args:
        folder: The run folder.
        settings: Which pipeline, where and how.
    """

    def __init__(self, folder: Path, settings: Diffusion) -> None:
        self._folder = folder
        self._model = settings.model
        self._workers = diffusion_workers(settings)

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
        return replace(row, image=await _keep(self._folder, shard, row, as_jpeg(side_by_side(images))))

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


async def _keep(folder: Path, shard: int, row: Row, image: bytes) -> str:
    """Write the image of a row; returns its path relative to the run folder. Others are made while the disk is busy.

    Raises:
        CannotWriteError: When the disk is full or the place cannot be written.
    """
    relative = f"{IMAGE_FOLDER}/{shard:05d}/{row.id}.jpg"
    await asyncio.to_thread(write_whole, folder / relative, image)
    return relative
