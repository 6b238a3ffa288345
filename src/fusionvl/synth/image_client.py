"""What draws, in worker processes: any text-to-image pipeline of diffusers, and the renderer of scenes.

A scene is known to the last detail, so the renderer brings its description, its questions and its facts as well. Knows
no files. diffusers and torch are imported in the workers only.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from PIL import Image

from fusionvl.data.extras import import_extra
from fusionvl.synth.recipe import Diffusion, Procedural
from fusionvl.synth.rows import Row
from fusionvl.synth.scene_sample import scene_sample
from fusionvl.synth.scenes.drawings import Drawings
from fusionvl.synth.scenes.things import Split
from fusionvl.synth.workers import Compute, Workers

_QUALITY = 92
_BATCH = 8


@dataclass(frozen=True, slots=True)
class DrawRequest:
    """One image to draw.

    Attributes:
        prompt: What it shows.
        seed: Of its noise.
    """

    prompt: str
    seed: int


def diffusion_workers(settings: Diffusion) -> Workers[DrawRequest, Image.Image]:
    """One process per device that holds the pipeline."""
    return Workers(partial(load_pipeline, settings), settings.devices, settings.batch_size)


def scene_workers(settings: Procedural | None, with_turns: bool) -> Workers[Row, tuple[Row, bytes | None]]:
    """Processes that make scenes; see `make_scene`. Without settings no picture is drawn."""
    processes = 1 if settings is None else settings.processes
    return Workers(partial(_scene_maker, settings, with_turns), ["cpu"] * processes, _BATCH)


def load_pipeline(settings: Diffusion, device: str) -> Callable[[Sequence[DrawRequest]], list[Image.Image]]:
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
    split = cast(Split, row.split)
    sample = scene_sample(row.kind, int(row.id, 16), split=split)
    turns = sample.turns if with_turns else row.turns
    row = replace(row, description=sample.description, turns=turns, truth=sample.truth)
    return row, None if size is None else as_jpeg(sample.draw(size, drawings))


def as_jpeg(image: Image.Image) -> bytes:
    """An image as JPEG, colours at full resolution: thin coloured shapes would bleed otherwise."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()
