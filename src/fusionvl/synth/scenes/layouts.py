"""What is where, told by shape or by colour, never by both: part by part, name by name, or seen from one thing.

Who reads `a red` before things are seen well learns which shapes are red, and not to see others. Each question has one
right answer: names come in the order of the lexicon, parts in reading order. Knows the graph and English.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fusionvl.data import Turn
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.palette import COLOURS
from fusionvl.synth.scenes.placement import direction
from fusionvl.synth.scenes.scene_graph import Scene, Thing
from fusionvl.synth.scenes.shapes import SHAPES
from fusionvl.synth.scenes.wording import DIRECTIONS, a, listing, place_phrase, sentence

_BY_PLACE = (
    "Which {what} is in each part of the image?",
    "Go through the {what}s part by part.",
    "Which {what} can be seen where?",
)
_BY_NAME = (
    "Which {what}s are in the image, and where?",
    "Go through the {what}s and say where they are.",
    "Where is each {what}?",
)
_SEEN_FROM = (
    "Where is each {what}, seen from the {here}?",
    "Seen from the {here}, which {what}s are where?",
    "Go through the {what}s and say in which direction from the {here} they are.",
)
_NAMES = ("Which {what}s can be seen?", "Name the {what}s in the image.", "Go through the {what}s.")


@dataclass(frozen=True, slots=True)
class Attribute:
    """By what things are told apart.

    Attributes:
        word: Its name.
        of: Its value.
        order: All values, in the order in which they are listed.
        noun: What a thing of that value is called: `star`, `red shape`.
        thing: A thing of that value, no more said of it: `a star`, `something red`.
    """

    word: str
    of: Callable[[Thing], str]
    order: Sequence[str]
    noun: Callable[[str], str]
    thing: Callable[[str], str]


SHAPE = Attribute("shape", lambda thing: thing.shape, SHAPES, str, a)
COLOUR = Attribute("color", lambda thing: thing.colour, tuple(COLOURS), "{} shape".format, "something {}".format)


def by_place(scene: Scene, attribute: Attribute, draws: Draws) -> Turn:
    """What is in each part, in reading order, as `At the top there is a star, in the center a ring`.

    Raises:
        ValueError: If a thing is close to the border between two parts.
    """
    question = draws.one_of(_BY_PLACE).format(what=attribute.word)
    things = sorted(scene.things, key=_reading_order)
    verbs = ("there is ", *[""] * (len(things) - 1))
    parts = [
        f"{_place(thing, scene)} {verb}{attribute.thing(attribute.of(thing))}"
        for verb, thing in zip(verbs, things, strict=True)
    ]
    return Turn(question, sentence(listing(parts)))


def by_name(scene: Scene, attribute: Attribute, draws: Draws) -> Turn:
    """Where each shape or colour is, as `Star at the top, star in the center, ring on the left side`.

    Raises:
        ValueError: If a thing is close to the border between two parts.
    """
    question = draws.one_of(_BY_NAME).format(what=attribute.word)
    return Turn(question, _listed(scene.things, attribute, lambda thing: _place(thing, scene)))


def seen_from_one(scene: Scene, attribute: Attribute, draws: Draws) -> Turn | None:
    """Where the others are, seen from one that is unlike them, as `Star above, ring to the left`.

    Returns:
        None where every thing has its like.

    Raises:
        ValueError: If one is in no clear direction from that one.
    """
    counts = Counter(map(attribute.of, scene.things))
    alone = [thing for thing in scene.things if counts[attribute.of(thing)] == 1]
    if not alone:
        return None
    here = draws.one_of(alone)
    others = [thing for thing in scene.things if thing is not here]
    question = draws.one_of(_SEEN_FROM).format(what=attribute.word, here=attribute.noun(attribute.of(here)))
    return Turn(question, _listed(others, attribute, lambda thing: _direction(thing, here)))


def names(scene: Scene, attribute: Attribute, draws: Draws) -> Turn:
    """Which shapes or colours there are, as `Star, ring`."""
    question = draws.one_of(_NAMES).format(what=attribute.word)
    present = sorted({attribute.of(thing) for thing in scene.things}, key=attribute.order.index)
    return Turn(question, sentence(", ".join(present)))


def _listed(things: Sequence[Thing], attribute: Attribute, where: Callable[[Thing], str]) -> str:
    ordered = sorted(things, key=lambda thing: (attribute.order.index(attribute.of(thing)), *_reading_order(thing)))
    return sentence(", ".join(f"{attribute.of(thing)} {where(thing)}" for thing in ordered))


def _reading_order(thing: Thing) -> tuple[int, float]:
    return int(thing.y * 3), thing.x


def _place(thing: Thing, scene: Scene) -> str:
    place = place_phrase(thing, scene.frame)
    if place is None:
        raise ValueError(f"the {thing.shape} at ({thing.x:.2f}, {thing.y:.2f}) is in no region of the image")
    return place


def _direction(thing: Thing, here: Thing) -> str:
    where = direction((thing.x, thing.y), (here.x, here.y))
    if where is None:
        raise ValueError(f"the {thing.shape} is in no clear direction from the {here.shape}")
    return DIRECTIONS[where].removesuffix(" of")
