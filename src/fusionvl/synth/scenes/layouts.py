"""What is where, part by part, told by shape or by colour, never by both.

Who reads `a red` before things are seen well learns which shapes are red, and not to see others. The question has one
right answer: parts come in reading order. Knows the graph and English.
"""

from fusionvl.data import Turn
from fusionvl.synth.scenes.attributes import Attribute
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.scene_graph import Scene, Thing
from fusionvl.synth.scenes.wording import listing, place_phrase, sentence

_QUESTIONS = (
    "Which {what} is in each part of the image?",
    "Go through the {what}s part by part.",
    "Which {what} can be seen where?",
)


def by_place(scene: Scene, attribute: Attribute, draws: Draws) -> Turn:
    """What is in each part, as `At the top there is a star, in the center a ring`.

    Raises:
        ValueError: If a thing is close to the border between two parts.
    """
    question = draws.one_of(_QUESTIONS).format(what=attribute.word)
    things = sorted(scene.things, key=lambda thing: (int(thing.y * 3), thing.x))
    verbs = ("there is ", *[""] * (len(things) - 1))
    parts = [
        f"{_place(thing, scene)} {verb}{attribute.thing(attribute.of(thing))}"
        for verb, thing in zip(verbs, things, strict=True)
    ]
    return Turn(question, sentence(listing(parts)))


def _place(thing: Thing, scene: Scene) -> str:
    place = place_phrase(thing, scene.frame)
    if place is None:
        raise ValueError(f"the {thing.shape} at ({thing.x:.2f}, {thing.y:.2f}) is in no region of the image")
    return place
