"""How things are called in questions and answers: by as much as it takes, or by their shape or colour alone.

Who hears of both shape and colour before seeing well learns which shapes are red. Asks nothing.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.palette import COLOURS
from fusionvl.synth.scenes.scene_graph import Thing
from fusionvl.synth.scenes.shapes import SHAPES
from fusionvl.synth.scenes.wording import a, noun_phrase, reference

_BY_SHAPE = 2 / 3  # share of what is told by one attribute; colours are learned sooner


@dataclass(frozen=True, slots=True)
class Naming:
    """How things are called.

    Attributes:
        answer: A thing as a short answer: `a red star`, `star`, `red`.
        thing: A thing in a sentence: `a red star`, `a star`, `something red`.
        named: Those of the things that can be referred to, with the phrase that does: `the red star`.
        subjects: What begins a question for a thing, as `What is` in `What is at the top?`.
        furthest: The same for a question for the thing furthest to a side.
        noun: What all of them are.
    """

    answer: Callable[[Thing], str]
    thing: Callable[[Thing], str]
    named: Callable[[Sequence[Thing]], list[tuple[str, Thing]]]
    subjects: tuple[str, ...]
    furthest: tuple[str, ...]
    noun: str


@dataclass(frozen=True, slots=True)
class OneAttribute(Naming):
    """Things by one attribute.

    Attributes:
        word: Its name.
        order: All its values, in the order in which they are listed.
    """

    word: str
    order: tuple[str, ...]


def _a_noun(thing: Thing) -> str:
    return a(noun_phrase(thing))


def _by_all(things: Sequence[Thing]) -> list[tuple[str, Thing]]:
    return [(it, thing) for thing in things if (it := reference(thing, things)) is not None]


BY_ALL = Naming(
    _a_noun, _a_noun, _by_all, ("What is", "Which shape is"), ("Which shape is", "What is the shape"), "shape"
)
BY_NAME = Naming(
    _a_noun, _a_noun, _by_all, ("What is", "Which thing is"), ("Which thing is", "What is the thing"), "thing"
)
"""Things that artists have drawn."""


def by_one(draws: Draws) -> OneAttribute:
    """Things by their shape alone or by their colour alone."""
    return BY_SHAPE if draws.chance(_BY_SHAPE) else BY_COLOUR


def _one(
    word: str, asked: str, order: Sequence[str], of: Callable[[Thing], str], noun: str, thing: Callable[[str], str]
) -> OneAttribute:
    def named(things: Sequence[Thing]) -> list[tuple[str, Thing]]:
        counts = Counter(map(of, things))
        return [(f"the {noun.format(of(thing))}", thing) for thing in things if counts[of(thing)] == 1]

    subjects = (f"What {asked} is", f"Which {asked} is")
    return OneAttribute(of, lambda it: thing(of(it)), named, subjects, subjects, "shape", word, tuple(order))


BY_SHAPE = _one("shape", "kind of shape", SHAPES, lambda thing: thing.shape, "{}", a)
BY_COLOUR = _one("color", "color", tuple(COLOURS), lambda thing: thing.colour, "{} shape", "something {}".format)
