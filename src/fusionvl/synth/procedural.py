"""The step of procedural scenes: one scene gives the exact description, the exact questions and the image.

Which of the three a row takes is the recipe's choice; a language model may ask about the same scene. Scenes are drawn
in worker processes. Knows scenes only by what one is asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from fusionvl.synth.image_files import encode, keep_image
from fusionvl.synth.progress import Price
from fusionvl.synth.rows import Row, SynthTurn, seed_of
from fusionvl.synth.workers import WorkError, Workers

_BATCH = 8
_STEP = "scene"


class Scene(Protocol):
    """A scene, as the renderer gives it.

    Attributes:
        description: What there is to see, exactly.
        turns: Questions with exact answers, fit for the kind that was asked for.
        truth: The facts of the scene, as plain values.
    """

    @property
    def description(self) -> str: ...  # noqa: D102

    @property
    def turns(self) -> Sequence[SynthTurn]: ...  # noqa: D102

    @property
    def truth(self) -> dict[str, Any]: ...  # noqa: D102

    def draw(self, size: int) -> Image.Image:
        """The image, with so many pixels a side."""


MakeScene = Callable[[str, str, int, str], Scene]
"""From a row's id, kind, seed and split to its scene."""


@dataclass(frozen=True, slots=True)
class SceneRequest:
    """What a worker is asked for: a scene by id, kind, seed and split, drawn at a size or not at all."""

    id: str
    kind: str
    seed: int
    split: str
    size: int | None


@dataclass(frozen=True, slots=True)
class SceneReply:
    """What a worker made of it."""

    description: str
    turns: tuple[SynthTurn, ...]
    truth: dict[str, Any]
    image: bytes | None


class SceneStep:
    """Brings description and facts of a scene, and questions and image where the recipe says so.

    Args:
        folder: The run folder.
        make: Makes scenes; must be picklable.
        with_turns: Whether questions come from the scene.
        size: Pixels of a side of the image; None when something else draws.
        processes: How many draw at once.
    """

    def __init__(self, folder: Path, make: MakeScene, *, with_turns: bool, size: int | None, processes: int) -> None:
        self.price = Price()
        self._folder = folder
        self._with_turns = with_turns
        self._size = size
        build = partial(_maker, make)
        self._workers: Workers[SceneRequest, SceneReply] = Workers(build, ["cpu"] * processes, _BATCH)

    def is_done(self, row: Row) -> bool:
        """Whether the row has all that this step brings."""
        missing_turns = self._with_turns and not row.turns
        missing_image = self._size is not None and row.image is None
        return bool(row.description) and not missing_turns and not missing_image

    async def run(self, row: Row, shard: int) -> Row:
        """Make the scene of a row."""
        seed = seed_of(row.id, _STEP)
        row = replace(row, attempts=row.attempts + 1, seeds=row.seeds | {_STEP: seed})
        try:
            reply = await self._workers(SceneRequest(row.id, row.kind, seed, row.split, self._size))
        except WorkError as error:
            return row.failed(f"scene: {error}")
        row = replace(row, description=reply.description, truth=reply.truth, models=row.models | {_STEP: "procedural"})
        if self._with_turns:
            row = replace(row, turns=reply.turns)
        if reply.image is not None:
            row = replace(row, image=keep_image(self._folder, shard, row, reply.image))
        return row

    def close(self) -> None:
        """End the workers."""
        self._workers.close()


def _maker(make: MakeScene, _device: str) -> Callable[[Sequence[SceneRequest]], list[SceneReply]]:
    return lambda requests: [_made(make, request) for request in requests]


def _made(make: MakeScene, request: SceneRequest) -> SceneReply:
    scene = make(request.id, request.kind, request.seed, request.split)
    image = None if request.size is None else encode(scene.draw(request.size))
    return SceneReply(scene.description, tuple(scene.turns), scene.truth, image)


def make_scene(row: str, kind: str, seed: int, split: str) -> Scene:
    """The renderer's scene of a row."""
    raise NotImplementedError
