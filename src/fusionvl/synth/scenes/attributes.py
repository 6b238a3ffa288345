"""By what things are told apart when only one thing is said of each: their shapes, or their colours.

Knows the graph and words; asks nothing.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fusionvl.synth.scenes.palette import COLOURS
from fusionvl.synth.scenes.scene_graph import Thing
from fusionvl.synth.scenes.shapes import SHAPES
from fusionvl.synth.scenes.wording import a


@dataclass(frozen=True, slots=True)
class Attribute:
    """By what things are told apart.

    Attributes:
        word: Its name.
        kind: What a question for it asks for: `kind of shape`, `color`.
        of: Its value.
        order: All values, in the order in which they are listed.
        noun: What a thing of that value is called: `star`, `red shape`.
        thing: A thing of that value, no more said of it: `a star`, `something red`.
    """

    word: str
    kind: str
    of: Callable[[Thing], str]
    order: Sequence[str]
    noun: Callable[[str], str]
    thing: Callable[[str], str]

    def alone(self, things: Sequence[Thing]) -> list[Thing]:
        """The things whose value no other has."""
        counts = Counter(map(self.of, things))
        return [thing for thing in things if counts[self.of(thing)] == 1]


SHAPE = Attribute("shape", "kind of shape", lambda thing: thing.shape, SHAPES, str, a)
COLOUR = Attribute(
    "color", "color", lambda thing: thing.colour, tuple(COLOURS), "{} shape".format, "something {}".format
)
