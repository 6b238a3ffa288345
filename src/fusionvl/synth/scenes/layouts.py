"""What is where, told by shape or by colour, never by both: part by part, or name by name.

Who reads `a red` before things are seen well learns which shapes are red, and not to see others. Each question has one
right answer: names come in the order of the lexicon, parts in reading order. Knows the graph and English.
"""

from fusionvl.data import Turn
from fusionvl.synth.scenes.attributes import Attribute
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.scene_graph import Scene, Thing
from fusionvl.synth.scenes.wording import listing, place_phrase, sentence

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
    return Turn(question, _listed(scene, attribute))


def _listed(scene: Scene, attribute: Attribute) -> str:
    order = attribute.order.index
    things = sorted(scene.things, key=lambda thing: (order(attribute.of(thing)), *_reading_order(thing)))
    return sentence(", ".join(f"{attribute.of(thing)} {_place(thing, scene)}" for thing in things))


def _reading_order(thing: Thing) -> tuple[int, float]:
    return int(thing.y * 3), thing.x


def _place(thing: Thing, scene: Scene) -> str:
    place = place_phrase(thing, scene.frame)
    if place is None:
        raise ValueError(f"the {thing.shape} at ({thing.x:.2f}, {thing.y:.2f}) is in no region of the image")
    return place
