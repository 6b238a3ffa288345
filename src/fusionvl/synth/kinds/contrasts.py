"""ContrastShort and ContrastLong: two scenes side by side that differ in one to three things."""

from collections import Counter
from dataclasses import dataclass, replace

from fusionvl.synth.kinds.kind import Content, Kind
from fusionvl.synth.kinds.scene_question import SceneQuestion, drawn, yes_no
from fusionvl.synth.kinds.written import Asked, conversation
from fusionvl.synth.rows import SynthTurn
from fusionvl.synth.scenes.compositions import in_cells
from fusionvl.synth.scenes.descriptions import inventory
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.placement import lattice
from fusionvl.synth.scenes.scene_graph import Box, Scene, Thing
from fusionvl.synth.scenes.things import Pair, Split, draw_background, shade, visible_pairs
from fusionvl.synth.scenes.wording import a, are, counted, listing, noun_phrase

_LEFT, _RIGHT = Box(0.0, 0.0, 0.49, 1.0), Box(0.51, 0.0, 1.0, 1.0)
_SHIFT = 0.51  # from a place in the left scene to the same place in the right one


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        what: What changed, in short.
        sentence: What is on either side.
    """

    what: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two scenes side by side, equal but for some changes of different things."""

    left: Scene
    right: Scene
    changes: list[Change]


def _contrasting(draws: Draws, split: Split, most: int) -> Contrast:
    background = draw_background(draws)
    count = draws.integer(1, most)
    cells = [place for row in lattice(draws, _LEFT, 2, 4) for place in row]
    choice = visible_pairs(split, background)
    pairs = draws.some_of(choice, draws.integer(3, 5))
    things = list(in_cells(draws, pairs, draws.some_of(cells, len(pairs)), 0.17, 0.19))
    left, right, changes = list(things), list(things), []
    for thing, kind in zip(draws.some_of(things, count), draws.some_of(tuple(_CHANGES), count), strict=True):
        used = {(other.shape, other.colour) for other in left + right}
        changed, change = _CHANGES[kind](draws, thing, [pair for pair in choice if pair not in used])
        index = right.index(thing)
        right[index : index + 1] = changed
        changes.append(change)
    if draws.chance(0.5):
        left, right, changes = right, left, [_mirrored(change) for change in changes]
    shifted = tuple(replace(thing, x=thing.x + _SHIFT) for thing in right)
    return Contrast(Scene(background, tuple(left), frame=_LEFT), Scene(background, shifted, frame=_RIGHT), changes)


def _mirrored(change: Change) -> Change:
    """The change with left and right exchanged."""
    swapped = change.sentence.replace("left", "\0").replace("right", "left").replace("\0", "right")
    return Change(change.what, swapped)


def _recoloured(draws: Draws, thing: Thing, spare: list[Pair]) -> tuple[list[Thing], Change]:
    options = [colour for shape, colour in spare if shape == thing.shape]
    if not options:
        return _removed(draws, thing, spare)
    colour = draws.one_of(options)
    told = f"The {thing.shape} that is {thing.colour} in the left image is {colour} in the right one."
    return [replace(thing, colour=colour, rgb=shade(draws, colour))], Change(f"the color of one {thing.shape}", told)


def _reshaped(draws: Draws, thing: Thing, spare: list[Pair]) -> tuple[list[Thing], Change]:
    options = [shape for shape, colour in spare if colour == thing.colour]
    if not options:
        return _removed(draws, thing, spare)
    shape = draws.one_of(options)
    told = f"Where the left image has {a(noun_phrase(thing))}, the right one has {a(f'{thing.colour} {shape}')}."
    return [replace(thing, shape=shape, angle=0)], Change(f"the form of one {thing.colour} shape", told)


def _removed(draws: Draws, thing: Thing, spare: list[Pair]) -> tuple[list[Thing], Change]:
    what = noun_phrase(thing)
    told = f"There is {a(what)} in the left image, but not in the right one."
    return [], Change(f"the presence of the {what}", told)


_CHANGES = {"colour": _recoloured, "shape": _reshaped, "presence": _removed}


def _difference(draws: Draws, contrast: Contrast) -> SynthTurn:
    forms = (
        "What is the difference between the two images?",
        "What differs between the left and the right image?",
        "Compare the two images: what has changed?",
        "Spot the difference between the left image and the right image.",
    )
    return SynthTurn(draws.phrase(forms), " ".join(change.sentence for change in contrast.changes))


def _questions(draws: Draws, contrast: Contrast) -> list[SceneQuestion]:
    """Short questions: which side has what, and how many."""
    questions = [*_sides(draws, contrast), *_shared(draws, contrast), _how_many_differences(contrast.changes)]
    left, right = len(contrast.left.things), len(contrast.right.things)
    if left != right:
        side = "left" if left > right else "right"
        full = f"The {side} image has more shapes: {left} on the left, {right} on the right."
        wrong = (_other(side), "both the same")
        questions.append(SceneQuestion("Which image has more shapes?", f"the {side} one", full, wrong))
    return questions


def _other(side: str) -> str:
    return "the right one" if side == "left" else "the left one"


def _phrases(scene: Scene) -> Counter[str]:
    return Counter(noun_phrase(thing) for thing in scene.things)


def _sides(draws: Draws, contrast: Contrast) -> list[SceneQuestion]:
    forms = ("Which image has {it}?", "In which of the two images is there {it}?")
    left, right = _phrases(contrast.left).keys(), _phrases(contrast.right).keys()
    questions = []
    for side, here in (("left", left - right), ("right", right - left)):
        for what in map(a, sorted(here)):
            text, wrong = draws.phrase(forms, it=what), (_other(side), "both", "neither")
            questions.append(SceneQuestion(text, f"the {side} one", f"Only the {side} image has {what}.", wrong))
    return questions


def _shared(draws: Draws, contrast: Contrast) -> list[SceneQuestion]:
    left, right = _phrases(contrast.left).keys(), _phrases(contrast.right).keys()
    questions = []
    for truth, choice in ((True, sorted(left & right)), (False, sorted(left ^ right))):
        if choice:
            what = draws.one_of(choice)
            side = "left" if what in left else "right"
            shared, single = f"both images have {a(what)}", f"only the {side} image has {a(what)}"
            questions.append(yes_no(f"Is there {a(what)} in both images?", truth, shared, single))
    return questions


def _how_many_differences(changes: list[Change]) -> SceneQuestion:
    count = len(changes)
    told = listing([change.what for change in changes])
    full = f"There {are(count)} {counted(count, 'difference')}: {told}."
    wrong = tuple(str(number) for number in (1, 2, 3, 4) if number != count)
    return SceneQuestion("How many differences are there between the two images?", str(count), full, wrong)


def _comparison(contrast: Contrast) -> str:
    """What both have, then every difference."""
    shared = sorted((_phrases(contrast.left) & _phrases(contrast.right)).elements())
    opening = "Both images have the same background."
    if shared:
        same = listing([a(what) for what in shared])
        opening = f"Both images show {same} in the same places, and they have the same background."
    count = len(contrast.changes)
    told = " ".join(change.sentence for change in contrast.changes)
    return f"{opening} There {are(count)} {counted(count, 'difference')}. {told}"


def _short(draws: Draws, split: Split) -> Content:
    """The differences, and one to three questions about them."""
    contrast = _contrasting(draws, split, 2)
    questions = drawn(draws, _questions(draws, contrast), draws.integer(1, 3))
    turns = [_difference(draws, contrast), *(question.short() for question in questions)]
    return Content((contrast.left, contrast.right), tuple(draws.shuffled(turns)))


def _long(draws: Draws, split: Split) -> Content:
    """A full comparison, what either image shows, and a question."""
    forms = (
        "Compare the two images in detail.",
        "What do the two images have in common, and in what do they differ?",
        "Describe all similarities and differences of the two images.",
    )
    contrast = _contrasting(draws, split, 3)
    turns = [SynthTurn(draws.phrase(forms), _comparison(contrast))]
    for side, scene in (("left", contrast.left), ("right", contrast.right)):
        if draws.chance(0.5):
            turns.append(SynthTurn(f"What does the {side} image show?", inventory(scene, side)))
    turns += [question.long() for question in drawn(draws, _questions(draws, contrast), 1)]
    return Content((contrast.left, contrast.right), tuple(turns))


CONTRAST_SHORT = Kind("ContrastShort", _short, conversation(Asked, 1, 3), pictures=2)
CONTRAST_LONG = Kind("ContrastLong", _long, conversation(Asked, 1, 3), pictures=2)
