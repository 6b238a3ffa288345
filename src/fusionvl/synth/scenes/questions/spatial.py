"""Questions about where things are. Only what is beyond doubt is asked, see placement.py.

Things go by as much as it takes (`the star`, or `the red star` where there are others), or by one attribute alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

from fusionvl.synth.scenes.attributes import Attribute
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.placement import APART, direction, region
from fusionvl.synth.scenes.questions.question import Question, phrased, yes_no
from fusionvl.synth.scenes.scene_graph import Scene, Thing
from fusionvl.synth.scenes.wording import DIRECTIONS, OPPOSITES, REGIONS, a, noun_phrase, reference, sentence

_EXTREMES: tuple[tuple[str, Callable[[Thing], float]], ...] = (
    ("furthest to the left", lambda thing: thing.x),
    ("furthest to the right", lambda thing: -thing.x),
    ("highest up", lambda thing: thing.y),
    ("lowest down", lambda thing: -thing.y),
)


@dataclass(frozen=True, slots=True)
class Naming:
    """How things are called in questions and answers.

    Attributes:
        named: Those of the things that can be referred to, with the phrase that does: `the red star`.
        answer: A thing as a short answer: `a red star`.
        thing: A thing in a sentence: `a red star`.
        subjects: What begins a question for a thing, as `What` in `What is at the top?`.
        furthest: The same for a question for the thing furthest to a side.
    """

    named: Callable[[Sequence[Thing]], list[tuple[str, Thing]]]
    answer: Callable[[Thing], str]
    thing: Callable[[Thing], str]
    subjects: tuple[str, ...]
    furthest: tuple[str, ...]


def _by_all(things: Sequence[Thing]) -> list[tuple[str, Thing]]:
    return [(it, thing) for thing in things if (it := reference(thing, things)) is not None]


def _a_noun(thing: Thing) -> str:
    return a(noun_phrase(thing))


BY_ALL = Naming(_by_all, _a_noun, _a_noun, ("What is", "Which shape is"), ("Which shape is", "What is the shape"))


def by_one(attribute: Attribute) -> Naming:
    """Things by their shape alone or by their colour alone, in questions and in answers."""
    subjects = (f"What {attribute.kind} is", f"Which {attribute.kind} is")
    return Naming(
        named=lambda things: [(f"the {attribute.noun(attribute.of(it))}", it) for it in attribute.alone(things)],
        answer=attribute.of,
        thing=lambda thing: attribute.thing(attribute.of(thing)),
        subjects=subjects,
        furthest=subjects,
    )


def spatial_questions(scene: Scene, draws: Draws, naming: Naming = BY_ALL) -> list[Question]:
    """Questions about pairs of things, about ends of the picture, and about its nine regions."""
    questions = relation_questions(scene.things, draws, naming)
    for it, thing in naming.named(scene.things):
        questions += _where(draws, scene, it, thing)
        questions += _which_is_there(draws, scene, naming, thing)
        questions += _neighbour(draws, scene.things, naming, it, thing)
    questions += _extremes(draws, scene.things, naming)
    return questions


def where_questions(scene: Scene, draws: Draws, naming: Naming = BY_ALL) -> list[Question]:
    """In which of the picture's nine regions things are."""
    return [question for it, thing in naming.named(scene.things) for question in _where(draws, scene, it, thing)]


def direction_questions(scene: Scene, draws: Draws, naming: Naming = BY_ALL) -> list[Question]:
    """In which direction one thing is from another."""
    pairs = permutations(naming.named(scene.things), 2)
    return [question for one, other in pairs for question in _direction(draws, one, other)]


def overlap_questions(scene: Scene, draws: Draws) -> list[Question]:
    """Questions about a scene whose second thing is in front of its first, while the others are apart."""
    behind, before = (f"the {thing.shape}" for thing in scene.things[:2])
    one, other = (noun_phrase(thing) for thing in scene.things[:2])
    wrong = tuple(a(noun_phrase(thing)) for thing in (scene.things[0], *scene.things[2:]))
    full = sentence(f"{before} is in front of {behind}")
    questions = [
        Question("spatial", f"Which shape is in front of {behind}?", a(other), full, wrong),
        Question("spatial", f"Which shape is partly hidden by {before}?", a(one), sentence(
            f"{behind} is partly hidden by {before}"), tuple(a(noun_phrase(t)) for t in scene.things[1:])),
    ]  # fmt: skip
    fact = f"{before} is in front of {behind}"
    for first, second, truth in ((before, behind, True), (behind, before, False)):
        text = draws.one_of((f"Is {first} in front of {second}?", f"Is {second} behind {first}?"))
        questions.append(yes_no("spatial", text, truth, fact, fact))
    return questions


def relation_questions(things: Sequence[Thing], draws: Draws, naming: Naming = BY_ALL) -> list[Question]:
    """Where one thing is, seen from another."""
    questions: list[Question] = []
    for one, other in permutations(naming.named(things), 2):
        questions += _direction(draws, one, other)
        questions += _is_it_there(draws, one, other)
    return questions


def _direction(draws: Draws, one: tuple[str, Thing], other: tuple[str, Thing]) -> list[Question]:
    where = direction((one[1].x, one[1].y), (other[1].x, other[1].y))
    if where is None:
        return []
    forms = ("Where is {it} relative to {other}?", "In which direction is {it} from {other}?",
             "How is {it} placed with respect to {other}?")  # fmt: skip
    answer = DIRECTIONS[where].removesuffix(" of")
    wrong = [DIRECTIONS[" ".join(OPPOSITES[word] for word in where.split())].removesuffix(" of")]
    kin = [name for name in DIRECTIONS if len(name.split()) == len(where.split()) and name != where]
    wrong += [DIRECTIONS[name].removesuffix(" of") for name in draws.shuffled(kin)]
    full = sentence(f"{one[0]} is {DIRECTIONS[where]} {other[0]}")
    text = phrased(draws, forms, it=one[0], other=other[0])
    return [Question("spatial", text, answer, full, tuple(dict.fromkeys(wrong))[:3])]


def _is_it_there(draws: Draws, one: tuple[str, Thing], other: tuple[str, Thing]) -> list[Question]:
    where = direction((one[1].x, one[1].y), (other[1].x, other[1].y))
    if where is None:
        return []
    word = draws.one_of(where.split())
    truth = draws.chance(0.5)
    said = DIRECTIONS[word if truth else OPPOSITES[word]]
    statement, denial = f"{one[0]} is {said} {other[0]}", f"{one[0]} is {DIRECTIONS[word]} {other[0]}"
    return [yes_no("spatial", f"Is {one[0]} {said} {other[0]}?", truth, statement, denial)]


def _where(draws: Draws, scene: Scene, it: str, thing: Thing) -> list[Question]:
    where = region((thing.x, thing.y), scene.frame)
    if where is None:
        return []
    forms = ("Where in the image is {it}?", "In which part of the image is {it}?", "Where can {it} be found?")
    wrong = tuple(REGIONS[name] for name in draws.some_of([name for name in REGIONS if name != where], 3))
    full = sentence(f"{it} is {REGIONS[where]} of the image")
    return [Question("spatial", phrased(draws, forms, it=it), REGIONS[where], full, wrong)]


def _which_is_there(draws: Draws, scene: Scene, naming: Naming, thing: Thing) -> list[Question]:
    where = region((thing.x, thing.y), scene.frame)
    if where is None or [it for it in scene.things if region((it.x, it.y), scene.frame) in (where, None)] != [thing]:
        return []
    text = f"{draws.one_of(naming.subjects)} {REGIONS[where]} of the image?"
    full = f"There is {naming.thing(thing)} {REGIONS[where]} of the image."
    return [_which(naming, text, thing, full, scene.things)]


def _neighbour(draws: Draws, things: Sequence[Thing], naming: Naming, it: str, thing: Thing) -> list[Question]:
    questions = []
    for where in OPPOSITES:
        seen = [other for other in things if direction((other.x, other.y), (thing.x, thing.y)) == where]
        doubtful = [
            other for other in things
            if other is not thing and direction((other.x, other.y), (thing.x, thing.y)) is None
        ]  # fmt: skip
        if len(seen) != 1 or doubtful:
            continue
        text = f"{draws.one_of(naming.subjects)} directly {DIRECTIONS[where]} {it}?"
        full = sentence(f"{naming.thing(seen[0])} is directly {DIRECTIONS[where]} {it}")
        questions.append(_which(naming, text, seen[0], full, [other for other in things if other is not thing]))
    return questions


def _extremes(draws: Draws, things: Sequence[Thing], naming: Naming) -> list[Question]:
    questions = []
    for words, key in _EXTREMES:
        ranked = sorted(things, key=key)
        if len(ranked) < 2 or key(ranked[1]) - key(ranked[0]) < APART:
            continue
        text = f"{draws.one_of(naming.furthest)} {words}?"
        full = f"The shape {words} is {naming.thing(ranked[0])}."
        questions.append(_which(naming, text, ranked[0], full, ranked))
    return questions


def _which(naming: Naming, text: str, thing: Thing, full: str, things: Sequence[Thing]) -> Question:
    """A question for a thing; wrong answers are other things of the picture."""
    right = naming.answer(thing)
    wrong = tuple(dict.fromkeys(answer for other in things if (answer := naming.answer(other)) != right))
    return Question("spatial", text, right, full, wrong[:3])
