"""Five kinds that are not the paper's, of things that artists have drawn: their names, places, number, small ones.

Each question has one right answer: names come from left to right, what is bigger is bigger by far, and where a thing
is told or denied by its kind, no other thing of the picture could be meant. Answers are short without being asked to.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise

from fusionvl.synth.kinds.kind import Content, Kind
from fusionvl.synth.kinds.naming import BY_NAME
from fusionvl.synth.kinds.scene_question import SceneQuestion, yes_no
from fusionvl.synth.kinds.synth_count import how_many
from fusionvl.synth.kinds.synth_spatial import part_questions, spatial_questions
from fusionvl.synth.kinds.topic import Composed
from fusionvl.synth.scenes.drawn_things import (
    alike_drawn,
    characters,
    kind_of,
    mistakable,
    of_kind,
    one_drawn,
    several_drawn,
    slender,
    small_drawn,
)
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.palette import BACKDROPS
from fusionvl.synth.scenes.placement import APART
from fusionvl.synth.scenes.scene_graph import Background, Scene
from fusionvl.synth.scenes.things import Split
from fusionvl.synth.scenes.wording import a, listing, sentence

_BIGGER = 1.5  # times the diameter: more area, too, unless it is slender
_KINDS = {
    "animal": "an animal",
    "food": "something to eat",
    "vehicle": "a vehicle",
    "instrument": "a musical instrument",
}
_UNCLEAR = {"food": ("animal", "plant"), "vehicle": ("shopping cart", "parachute", "suitcase", "ice skate")}
"""Kinds and names of things that are of a kind, too, in some views."""
_WHAT = (
    "What is this?",
    "What does the image show?",
    "What can be seen in the image?",
    "Name the thing in the image.",
)
_FROM_LEFT = (
    "Name the things from left to right.",
    "What can be seen in the image, from left to right?",
    "List all things in the image from left to right.",
)
_IS_THERE = ("Is there {it} in the image?", "Does the image show {it}?", "Can you see {it}?")


def _thing(draws: Draws, split: Split) -> Content:
    """One thing, and what it is."""
    scene = one_drawn(draws, split)
    return Content((scene,), (_what(scene, draws).brief(),))


def _names(draws: Draws, split: Split) -> Content:
    """Two to four things, and all their names."""
    count = draws.one_of((2, 2, 3, 3, 4))
    while True:
        scene = several_drawn(draws, split, count)
        if asked := _from_left(scene, draws):
            return Content((scene,), (asked[0].brief(),))


def _scene(draws: Draws, split: Split) -> Content:
    """Up to eight questions about different things, each answered in a word or phrase."""
    scene = several_drawn(draws, split) if draws.chance(0.8) else one_drawn(draws, split)
    questions = [*_is_there(scene, draws), *_kinds(scene, draws), *_ground(scene, draws)]
    if len(scene.things) == 1:
        questions += [_what(scene, draws), *spatial_questions(scene, draws, BY_NAME)]
    else:
        questions += _from_left(scene, draws) + _bigger(scene, draws) + _places(scene, draws)
        questions.append(how_many(draws, "thing", len(scene.things)))
    composed = Composed(scene, questions)
    return composed.content(question.brief() for question in composed.chosen(draws, 8))


def _places(scene: Scene, draws: Draws) -> list[SceneQuestion]:
    """As many questions about places as of all other topics together: there are far more of them."""
    asked = spatial_questions(scene, draws, BY_NAME)
    return draws.some_of(asked, min(len(asked), 8))


def _count(draws: Draws, split: Split) -> Content:
    """Up to four questions, one of them how many there are of what there is most of."""
    scene = alike_drawn(draws, split)
    counts = Counter(thing.shape for thing in scene.things)
    name = draws.one_of([name for name in counts if counts[name] == max(counts.values())])
    questions = [how_many(draws, other, count) for other, count in counts.items() if other != name]
    questions += [how_many(draws, "thing", len(scene.things)), *_is_there(scene, draws), *_ground(scene, draws)]
    questions += _counted_kinds(scene, draws)
    composed = Composed(scene, questions, how_many(draws, name, counts[name]))
    return composed.content(question.brief() for question in composed.chosen(draws, 4))


def _small(draws: Draws, split: Split) -> Content:
    """Up to six questions about small things: which is where, and what is there."""
    scene = small_drawn(draws, split)
    composed = Composed(scene, [*part_questions(scene, draws, BY_NAME), *_is_there(scene, draws)])
    return composed.content(question.brief() for question in composed.chosen(draws, 6))


def _what(scene: Scene, draws: Draws) -> SceneQuestion:
    name = scene.things[0].shape
    wrong = tuple(map(a, draws.some_of(_clearly_absent(of_kind(kind_of()[name]), [name]), 3)))
    return SceneQuestion(draws.one_of(_WHAT), a(name), f"This is {a(name)}.", wrong)


def _from_left(scene: Scene, draws: Draws) -> list[SceneQuestion]:
    """All names in their order, where that is beyond doubt."""
    things = sorted(scene.things, key=lambda thing: thing.x)
    if any(right.x - left.x < APART for left, right in pairwise(things)):
        return []
    names = listing([a(thing.shape) for thing in things])
    full = sentence(f"from left to right there {'is' if len(things) == 1 else 'are'} {names}")
    return [SceneQuestion(draws.one_of(_FROM_LEFT), names, full)]


def _is_there(scene: Scene, draws: Draws) -> list[SceneQuestion]:
    """Of one thing that is there and one that is not, half of the time of the same kind as one that is."""
    there = [thing.shape for thing in scene.things]
    one = draws.one_of(there)
    near = of_kind(kind_of()[draws.one_of(there)]) if draws.chance(0.5) else list(characters())
    other = draws.one_of(_clearly_absent(near, there))
    return [
        yes_no(draws.phrase(_IS_THERE, it=a(name)), name in there, f"there is {a(name)}", f"there is no {name}")
        for name in (one, other)
    ]


def _clearly_absent(names: Sequence[str], there: Sequence[str]) -> list[str]:
    """Those of the names that nobody would give to anything there is."""
    taken = {*there, *(other for name in there for other in mistakable(name))}
    return [name for name in names if name not in taken]


def _kinds(scene: Scene, draws: Draws) -> list[SceneQuestion]:
    """Whether there is an animal, something to eat, a vehicle, a musical instrument: of one that is, and one not."""
    kinds = {kind_of()[thing.shape] for thing in scene.things}
    there = [kind for kind in _KINDS if kind in kinds]
    absent = [kind for kind in _KINDS if kind not in kinds and _is_clear(kind, scene)]
    return [
        yes_no(draws.phrase(_IS_THERE, it=_KINDS[kind]), kind in kinds, *_told(kind))
        for kind in (draws.one_of(some) for some in (there, absent) if some)
    ]


def _is_clear(kind: str, scene: Scene) -> bool:
    """Whether nothing in a scene is of a kind in some views only."""
    names = {name for thing in scene.things for name in (thing.shape, kind_of()[thing.shape])}
    return names.isdisjoint(_UNCLEAR.get(kind, ()))


def _told(kind: str) -> tuple[str, str]:
    """That there is one, and that there is none."""
    article, noun = _KINDS[kind].split(" ", 1)
    return f"there is {article} {noun}", f"there is {'nothing' if kind == 'food' else 'no'} {noun}"


def _counted_kinds(scene: Scene, draws: Draws) -> list[SceneQuestion]:
    counts = Counter(kind_of()[thing.shape] for thing in scene.things)
    told = {"animal": "animal", "vehicle": "vehicle", "instrument": "musical instrument"}
    return [how_many(draws, told[kind], counts[kind]) for kind in told if counts[kind] and _is_clear(kind, scene)]


def _ground(scene: Scene, draws: Draws) -> list[SceneQuestion]:
    """The background's colour, where it has one."""
    background = scene.background
    if not isinstance(background, Background) or background.style != "plain":
        return []
    colour = background.names[0]
    text = draws.one_of(("What color is the background?", "Which color does the background have?"))
    return [SceneQuestion(text, colour, f"The background is {colour}.", draws.others(BACKDROPS, colour))]


def _bigger(scene: Scene, draws: Draws) -> list[SceneQuestion]:
    questions = []
    named: dict[int, str] = {id(thing): it for it, thing in BY_NAME.named(scene.things)}
    compact = [thing for thing in scene.things if thing.shape not in slender()]
    for one, other in combinations(draws.shuffled(compact), 2):
        small, big = sorted((one, other), key=lambda thing: thing.diameter)
        if big.diameter >= _BIGGER * small.diameter:
            word, right, wrong = draws.one_of((("bigger", big, small), ("smaller", small, big)))
            it, rest = named[id(right)], named[id(wrong)]
            text = f"Which is {word} in the image, {named[id(one)]} or {named[id(other)]}?"
            full = sentence(f"in the image {it} is {word} than {rest}")
            questions.append(SceneQuestion(text, it, full, (rest,)))
    return questions


DRAWN = (
    Kind("DrawnThing", _thing, needs_drawings=True),
    Kind("DrawnNames", _names, needs_drawings=True),
    Kind("DrawnScene", _scene, needs_drawings=True),
    Kind("DrawnCount", _count, needs_drawings=True),
    Kind("DrawnSmall", _small, needs_drawings=True),
)
