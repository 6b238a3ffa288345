"""Questions about where things are. Only what is beyond doubt is asked, see placement.py."""

from collections.abc import Callable, Sequence

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


def spatial_questions(scene: Scene, draws: Draws) -> list[Question]:
    """Questions about pairs of things, about ends of the picture, and about its nine regions."""
    questions = relation_questions(scene.things, draws)
    for it, thing in _named(scene.things):
        questions += _where(draws, scene, it, thing)
        questions += _neighbour(draws, scene.things, it, thing)
    questions += _extremes(draws, scene.things)
    return questions


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


def relation_questions(things: Sequence[Thing], draws: Draws) -> list[Question]:
    """Where one thing is, seen from another."""
    questions: list[Question] = []
    for one in _named(things):
        for other in _named(things):
            if one[1] is not other[1]:
                questions += _relation(draws, one, other)
                questions += _is_it_there(draws, one, other)
    return questions


def _named(things: Sequence[Thing]) -> list[tuple[str, Thing]]:
    """The things that can be referred to, with the phrase that does."""
    return [(it, thing) for thing in things if (it := reference(thing, things)) is not None]


def _relation(draws: Draws, one: tuple[str, Thing], other: tuple[str, Thing]) -> list[Question]:
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
    questions = [Question("spatial", phrased(draws, forms, it=it), REGIONS[where], full, wrong)]
    alone = [other for other in scene.things if region((other.x, other.y), scene.frame) in (where, None)] == [thing]
    if alone:
        what = noun_phrase(thing)
        others = tuple(a(noun_phrase(o)) for o in scene.things if noun_phrase(o) != what)[:3]
        text = phrased(draws, ("What is {where} of the image?", "Which shape is {where} of the image?"),
                       where=REGIONS[where])  # fmt: skip
        full = f"There is {a(what)} {REGIONS[where]} of the image."
        questions.append(Question("spatial", text, a(what), full, others))
    return questions


def _neighbour(draws: Draws, things: Sequence[Thing], it: str, thing: Thing) -> list[Question]:
    questions = []
    for where in OPPOSITES:
        seen = [other for other in things if direction((other.x, other.y), (thing.x, thing.y)) == where]
        doubtful = [
            other for other in things
            if other is not thing and direction((other.x, other.y), (thing.x, thing.y)) is None
        ]  # fmt: skip
        if len(seen) != 1 or doubtful:
            continue
        what = noun_phrase(seen[0])
        where_text = DIRECTIONS[where]
        text = phrased(draws, ("What is directly {w} {it}?", "Which shape is directly {w} {it}?"), w=where_text, it=it)
        wrong = tuple(dict.fromkeys(a(noun_phrase(o)) for o in things if o is not thing and noun_phrase(o) != what))
        full = f"{a(what).capitalize()} is directly {where_text} {it}."
        questions.append(Question("spatial", text, a(what), full, wrong[:3]))
    return questions


def _extremes(draws: Draws, things: Sequence[Thing]) -> list[Question]:
    questions = []
    for words, key in _EXTREMES:
        ranked = sorted(things, key=key)
        if len(ranked) < 2 or key(ranked[1]) - key(ranked[0]) < APART:
            continue
        what = noun_phrase(ranked[0])
        wrong = tuple(dict.fromkeys(a(noun_phrase(o)) for o in ranked[1:] if noun_phrase(o) != what))[:3]
        text = phrased(draws, ("Which shape is {w}?", "What is the shape {w}?"), w=words)
        questions.append(Question("spatial", text, a(what), f"The shape {words} is {a(what)}.", wrong))
    return questions
