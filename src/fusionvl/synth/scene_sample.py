"""From the name of a scene to its picture, questions and exact answers.

A scene follows from its kind, split, seed and number alone: in any order, in any process, on any machine.
"""

from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from fusionvl.synth.kinds import kind_named
from fusionvl.synth.kinds.written import side_by_side
from fusionvl.synth.rows import SynthTurn
from fusionvl.synth.scenes.descriptions import describe, inventory
from fusionvl.synth.scenes.drawing import draw_picture
from fusionvl.synth.scenes.drawings import Drawings
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.scene_graph import Picture
from fusionvl.synth.scenes.things import SPLITS, Split


@dataclass(frozen=True, slots=True)
class SceneSample:
    """A picture as a graph, and a conversation about it.

    Attributes:
        id: Its name, from which all else follows.
        kind: Name of its kind.
        picture: One scene, or two side by side.
        turns: Questions and exact answers.
    """

    id: str
    kind: str
    picture: Picture
    turns: tuple[SynthTurn, ...]

    @property
    def description(self) -> str:
        """What there is to see, exactly; of two pictures, one after the other."""
        if len(self.picture) == 1:
            return describe(self.picture[0], Draws(f"{self.id}/description"))
        left, right = self.picture
        return side_by_side(inventory(left, "left"), inventory(right, "right"))

    @property
    def truth(self) -> dict[str, Any]:
        """The graph as plain values."""
        return {"pictures": [asdict(scene) for scene in self.picture]}

    def draw(self, size: int, drawings: Drawings | None = None) -> Image.Image:
        """The picture with so many pixels a side; the graph is the same at any size.

        Args:
            size: Pixels a side.
            drawings: What shows things that artists have drawn.

        Raises:
            ValueError: If the size is out of range, or a thing's drawing is missing.
            ModuleNotFoundError: If there is text to draw and no typeface, see `fonts`.
        """
        return draw_picture(self.picture, size, drawings)


def scene_sample(kind: str, number: int, *, seed: int = 0, split: Split = "train") -> SceneSample:
    """Makes a scene.

    Args:
        kind: Name of a kind.
        number: Which of them; from 0 on, there is no last one.
        seed: Another seed, other scenes.
        split: Scenes of the two splits have no combination of shape and colour in common, and no word.

    Raises:
        ValueError: If there is no such kind or split.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    name = f"{kind}-{split}-{seed}-{number:07d}"
    content = kind_named(kind).scene(Draws(name), split)
    return SceneSample(name, kind, content.picture, content.turns)
