"""SynthSpatial: where things are. Only what is beyond doubt is asked, see `placement`."""

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import TypeAlias

from fusionvl.synth.kinds.kind import Kind
from fusionvl.synth.kinds.naming import BY_ALL, Naming
from fusionvl.synth.kinds.scene_question import SceneQuestion, yes_no
from fusionvl.synth.kinds.topic import Composed, aligned
from fusionvl.synth.kinds.written import Asked, conversation
from fusionvl.synth.scenes.compositions import in_rows, overlapping
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.placement import APART, direction
from fusionvl.synth.scenes.scene_graph import Scene, Thing
from fusionvl.synth.scenes.things import Split
from fusionvl.synth.scenes.wording import DIRECTIONS, OPPOSITES, PARTS, a, noun_phrase, part_of, sentence

Named: TypeAlias = tuple[str, Thing]
"""A thing with the phrase that refers to it."""

_OVERLAPPING = 0.25  # share of the scenes
_EXTREMES: tuple[tuple[str, Callable[[Thing], float]], ...] = (
    ("furthest to the left", lambda thing: thing.x),
    ("furthest to the right", lambda thing: -thing.x),
    ("highest up", lambda thing: thing.y),
    ("lowest down", lambda thing: -thing.y),
)


def places(draws: Draws, split: Split) -> Composed:
    """Things in rows and columns, or one in front of another, with all questions about their places."""
    if draws.chance(_OVERLAPPING):
        scene = overlapping(draws, split)
        return Composed(scene, _overlap_questions(scene, draws))
    scene = in_rows(draws, split)
    return Composed(scene, spatial_questions(scene, draws))


def spatial_questions(scene: Scene, draws: Draws, naming: Naming = BY_ALL) -> list[SceneQuestion]:
    """Questions about pairs of things, about ends of the picture, and about its nine regions."""
    questions = relation_questions(scene.things, draws, naming)
    for named in naming.named(scene.things):
        questions += _where(draws, named)
        questions += _which_is_there(draws, scene.things, naming, named[1])
        questions += _neighbours(draws, scene.things, naming, named)
    return questions + _extremes(draws, scene.things, naming)


def part_questions(scene: Scene, draws: Draws, naming: Naming) -> list[SceneQuestion]:
    """In which of the picture's nine regions things are, and what is in a region."""
    questions = []
    for named in naming.named(scene.things):
        questions += _where(draws, named) + _which_is_there(draws, scene.things, naming, named[1])
    return questions


def where_questions(scene: Scene, draws: Draws, naming: Naming) -> list[SceneQuestion]:
    """In which of the picture's nine regions things are."""
    return [question for named in naming.named(scene.things) for question in _where(draws, named)]


def direction_questions(scene: Scene, draws: Draws, naming: Naming) -> list[SceneQuestion]:
    """In which direction one thing is from another."""
    pairs = permutations(naming.named(scene.things), 2)
    return [question for one, other in pairs for question in _direction(draws, one, other)]


def relation_questions(things: Sequence[Thing], draws: Draws, naming: Naming = BY_ALL) -> list[SceneQuestion]:
    """Where one thing is, seen from another."""
    questions: list[SceneQuestion] = []
    for one, other in permutations(naming.named(things), 2):
        questions += _direction(draws, one, other)
        questions += _is_it_there(draws, one, other)
    return questions


def _direction(draws: Draws, one: Named, other: Named) -> list[SceneQuestion]:
    where = direction(one[1], other[1])
    if where is None:
        return []
    opposite = " ".join(OPPOSITES[word] for word in where.split())
    kin = [name for name in DIRECTIONS if len(name.split()) == len(where.split()) and name != where]
    wrong = dict.fromkeys(_from(name) for name in (opposite, *draws.shuffled(kin)))
    forms = ("Where is {it} relative to {other}?", "In which direction is {it} from {other}?",
             "How is {it} placed with respect to {other}?")  # fmt: skip
    text = draws.phrase(forms, it=one[0], other=other[0])
    full = sentence(f"{one[0]} is {DIRECTIONS[where]} {other[0]}")
    return [SceneQuestion(text, _from(where), full, tuple(wrong)[:3])]


def _from(where: str) -> str:
    """`to the left`: a direction without what it is seen from."""
    return DIRECTIONS[where].removesuffix(" of")


def _is_it_there(draws: Draws, one: Named, other: Named) -> list[SceneQuestion]:
    where = direction(one[1], other[1])
    if where is None:
        return []
    word = draws.one_of(where.split())
    truth = draws.chance(0.5)
    said = DIRECTIONS[word if truth else OPPOSITES[word]]
    statement, denial = f"{one[0]} is {said} {other[0]}", f"{one[0]} is {DIRECTIONS[word]} {other[0]}"
    return [yes_no(f"Is {one[0]} {said} {other[0]}?", truth, statement, denial)]


def _where(draws: Draws, named: Named) -> list[SceneQuestion]:
    it, where = named[0], part_of(named[1])
    if where is None:
        return []
    wrong = draws.others(PARTS, where)
    forms = ("Where in the image is {it}?", "In which part of the image is {it}?", "Where can {it} be found?")
    full = sentence(f"{it} is {where} of the image")
    return [SceneQuestion(draws.phrase(forms, it=it), where, full, wrong)]


def _which_is_there(draws: Draws, things: Sequence[Thing], naming: Naming, thing: Thing) -> list[SceneQuestion]:
    where = part_of(thing)
    if where is None or [it for it in things if part_of(it) in (where, None)] != [thing]:
        return []
    text = f"{draws.one_of(naming.subjects)} {where} of the image?"
    full = f"There is {naming.thing(thing)} {where} of the image."
    return [_which(naming, text, thing, full, things)]


def _neighbours(draws: Draws, things: Sequence[Thing], naming: Naming, named: Named) -> list[SceneQuestion]:
    it, thing = named
    seen_from_it = [(other, direction(other, thing)) for other in things if other is not thing]
    if any(where is None for _, where in seen_from_it):
        return []
    questions = []
    for side in OPPOSITES:
        there = [other for other, where in seen_from_it if where == side]
        if len(there) == 1:
            text = f"{draws.one_of(naming.subjects)} directly {DIRECTIONS[side]} {it}?"
            full = sentence(f"{naming.thing(there[0])} is directly {DIRECTIONS[side]} {it}")
            questions.append(_which(naming, text, there[0], full, [other for other, _ in seen_from_it]))
    return questions


def _extremes(draws: Draws, things: Sequence[Thing], naming: Naming) -> list[SceneQuestion]:
    questions = []
    for words, key in _EXTREMES:
        ranked = sorted(things, key=key)
        if len(ranked) > 1 and key(ranked[1]) - key(ranked[0]) >= APART:
            text = f"{draws.one_of(naming.furthest)} {words}?"
            full = f"The {naming.noun} {words} is {naming.thing(ranked[0])}."
            questions.append(_which(naming, text, ranked[0], full, ranked))
    return questions


def _which(naming: Naming, text: str, thing: Thing, full: str, things: Sequence[Thing]) -> SceneQuestion:
    """A question for a thing; wrong answers are other things of the picture."""
    right = naming.answer(thing)
    wrong = dict.fromkeys(answer for other in things if (answer := naming.answer(other)) != right)
    return SceneQuestion(text, right, full, tuple(wrong)[:3])


def _overlap_questions(scene: Scene, draws: Draws) -> list[SceneQuestion]:
    """Questions about a scene whose second thing is in front of its first, while the others are apart."""
    behind, before = (f"the {thing.shape}" for thing in scene.things[:2])
    one, other, *rest = (a(noun_phrase(thing)) for thing in scene.things)
    fact = f"{before} is in front of {behind}"
    hidden = sentence(f"{behind} is partly hidden by {before}")
    questions = [
        SceneQuestion(f"Which shape is in front of {behind}?", other, sentence(fact), (one, *rest)),
        SceneQuestion(f"Which shape is partly hidden by {before}?", one, hidden, (other, *rest)),
    ]
    for first, second, truth in ((before, behind, True), (behind, before, False)):
        text = draws.one_of((f"Is {first} in front of {second}?", f"Is {second} behind {first}?"))
        questions.append(yes_no(text, truth, fact, fact))
    return questions


SYNTH_SPATIAL = Kind("SynthSpatial", aligned(places), conversation(Asked, 1, 3))
