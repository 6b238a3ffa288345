"""The front door of the procedural renderer: from the name of a sample to its picture, questions and exact answers.

A sample follows from its kind, split, seed and number alone: in any order, in any process, on any machine.
"""

from dataclasses import dataclass

from PIL import Image

from fusionvl.data import Turn
from fusionvl.synth.scenes.combinations import SPLITS, Split
from fusionvl.synth.scenes.drawing import draw_picture
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.kinds import ALL_KINDS
from fusionvl.synth.scenes.scene_graph import Picture


@dataclass(frozen=True, slots=True)
class SceneSample:
    """A picture as a graph, and a conversation about it.

    Attributes:
        id: Its name, from which all else follows.
        kind: A name in `kinds.ALL_KINDS`.
        picture: One scene, or two side by side.
        turns: Questions and exact answers.
    """

    id: str
    kind: str
    picture: Picture
    turns: tuple[Turn, ...]

    def draw(self, size: int) -> Image.Image:
        """The picture with so many pixels a side; the graph is the same at any size.

        Raises:
            ValueError: If the size is out of range.
            ModuleNotFoundError: If there is text to draw and no typeface, see fonts.py.
        """
        return draw_picture(self.picture, size)


def scene_sample(kind: str, number: int, *, seed: int = 0, split: Split = "train") -> SceneSample:
    """Makes a sample.

    Args:
        kind: One of `kinds.ALL_KINDS`.
        number: Which of them; from 0 on, there is no last one.
        seed: Another seed, other samples.
        split: Scenes of the two splits have no combination of shape and colour in common, and no word.

    Raises:
        ValueError: If there is no such kind or split.
    """
    if kind not in ALL_KINDS:
        raise ValueError(f"no kind {kind!r}; there are {', '.join(ALL_KINDS)}")
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    name = f"{kind}-{split}-{seed}-{number:07d}"
    content = ALL_KINDS[kind](Draws(name), split)
    return SceneSample(name, kind, content.picture, content.turns)
