"""The step of procedural scenes: one scene gives the exact description, the exact questions and the image.

Which of the three a row takes is the recipe's choice; a language model may ask about the same scene. Scenes are drawn
in worker processes. All that is known of the renderer is in `make_scene`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from fusionvl.synth.answers import SIDES
from fusionvl.synth.image_files import encode, keep_image
from fusionvl.synth.progress import Price
from fusionvl.synth.rows import Row, SynthTurn
from fusionvl.synth.scenes import SceneSample, scene_sample
from fusionvl.synth.scenes.descriptions import describe
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.kinds import SHORT
from fusionvl.synth.scenes.questions.contrast import inventory
from fusionvl.synth.workers import WorkError, Workers

_BATCH = 8
_STEP = "scene"
_OPTION = re.compile(r"^[A-D]\. (.+)$", re.MULTILINE)


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


MakeScene = Callable[[str, str, str], Scene]
"""From a row's id, kind and split to its scene."""


@dataclass(frozen=True, slots=True)
class SceneRequest:
    """What a worker is asked for: a scene by id, kind and split, drawn at a size or not at all."""

    id: str
    kind: str
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
        row = replace(row, attempts=row.attempts + 1)
        try:
            reply = await self._workers(SceneRequest(row.id, row.kind, row.split, self._size))
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
    scene = make(request.id, request.kind, request.split)
    image = None if request.size is None else encode(scene.draw(request.size))
    return SceneReply(scene.description, tuple(scene.turns), scene.truth, image)


@dataclass(frozen=True)
class _Rendered:
    """A sample of the renderer, as this step takes scenes."""

    sample: SceneSample

    @property
    def description(self) -> str:
        """Both descriptions of two pictures, told apart as those of language models are."""
        pictures = self.sample.picture
        if len(pictures) == 1:
            return describe(pictures[0], Draws(f"{self.sample.id}/description"))
        told = (inventory(scene, side) for scene, side in zip(pictures, ("left", "right"), strict=True))
        return "\n".join(map("".join, zip(SIDES, told, strict=True)))

    @property
    def turns(self) -> Sequence[SynthTurn]:
        """The questions, with options and the short right answer on their own."""
        return [_turn(turn.question, turn.answer) for turn in self.sample.turns]

    @property
    def truth(self) -> dict[str, Any]:
        """The graph."""
        return {"pictures": [asdict(scene) for scene in self.sample.picture]}

    def draw(self, size: int) -> Image.Image:
        """The image."""
        return self.sample.draw(size)


def _turn(question: str, answer: str) -> SynthTurn:
    options = tuple(_OPTION.findall(question)) or None
    is_short = options is not None or question.endswith(SHORT)
    return SynthTurn(question, answer, options, answer if is_short else None)


def make_scene(row: str, kind: str, split: str) -> Scene:
    """The renderer's scene of a row. Its number is the whole id: any shorter one would repeat among millions."""
    return _Rendered(scene_sample(kind, int(row, 16), split="held-out" if split == "held-out" else "train"))
