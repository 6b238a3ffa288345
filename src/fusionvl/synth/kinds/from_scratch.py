"""Four kinds that are not the paper's: what is where, told by shape or by colour, never by both.

They are for models that start from fresh weights, and of scenes alone. Each question has one right answer: names come
in the order of their list, parts of the picture in reading order.
"""

from collections.abc import Callable
from typing import TypeAlias

from fusionvl.synth.kinds.kind import Content, Kind
from fusionvl.synth.kinds.naming import Naming, OneAttribute, by_one
from fusionvl.synth.kinds.scene_question import SceneQuestion
from fusionvl.synth.kinds.synth_spatial import direction_questions, spatial_questions, where_questions
from fusionvl.synth.kinds.topic import Composed
from fusionvl.synth.rows import SynthTurn
from fusionvl.synth.scenes.compositions import in_rows
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.scene_graph import Scene, Thing
from fusionvl.synth.scenes.things import Split
from fusionvl.synth.scenes.wording import listing, part_of, sentence

Ask: TypeAlias = Callable[[Scene, Draws, Naming], list[SceneQuestion]]


def places_by_one(draws: Draws, split: Split) -> Composed:
    """Things in rows and columns, with all questions about their places that name one attribute."""
    return _asked(spatial_questions, draws, split)


def _asked(ask: Ask, draws: Draws, split: Split) -> Composed:
    while True:
        scene = in_rows(draws, split)
        questions = ask(scene, draws, by_one(draws))
        if questions:
            return Composed(scene, questions)


def _one_question(ask: Ask) -> Callable[[Draws, Split], Content]:
    """A kind with one question, half of the time answered in a sentence."""

    def scene(draws: Draws, split: Split) -> Content:
        composed = _asked(ask, draws, split)
        return composed.content([draws.one_of(composed.questions).either(draws)])

    return scene


def _told(tell: Callable[[Scene, OneAttribute, Draws], SynthTurn]) -> Callable[[Draws, Split], Content]:
    def scene(draws: Draws, split: Split) -> Content:
        shown = in_rows(draws, split)
        return Content((shown,), (tell(shown, by_one(draws), draws),))

    return scene


def _by_place(scene: Scene, naming: OneAttribute, draws: Draws) -> SynthTurn:
    """What is in each part, in reading order, as `At the top there is a star, in the center a ring`."""
    forms = (
        "Which {what} is in each part of the image?",
        "Go through the {what}s part by part.",
        "Which {what} can be seen where?",
    )
    things = sorted(scene.things, key=_reading_order)
    verbs = ("there is ", *[""] * (len(things) - 1))
    parts = [f"{part_of(thing)} {verb}{naming.thing(thing)}" for verb, thing in zip(verbs, things, strict=True)]
    return SynthTurn(draws.phrase(forms, what=naming.word), sentence(listing(parts)))


def _by_name(scene: Scene, naming: OneAttribute, draws: Draws) -> SynthTurn:
    """Where each shape or colour is, as `Star at the top, star in the center, ring on the left side`."""
    forms = (
        "Which {what}s are in the image, and where?",
        "Go through the {what}s and say where they are.",
        "Where is each {what}?",
    )
    things = sorted(scene.things, key=lambda it: (naming.order.index(naming.answer(it)), *_reading_order(it)))
    parts = [f"{naming.answer(thing)} {part_of(thing)}" for thing in things]
    return SynthTurn(draws.phrase(forms, what=naming.word), sentence(", ".join(parts)))


def _reading_order(thing: Thing) -> tuple[int, float]:
    return int(thing.y * 3), thing.x


FROM_SCRATCH = (
    Kind("SynthLayout", _told(_by_place)),
    Kind("SynthPlaces", _told(_by_name)),
    Kind("SynthWhere", _one_question(where_questions)),
    Kind("SynthDirection", _one_question(direction_questions)),
)
