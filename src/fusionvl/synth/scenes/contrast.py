"""Pairs of scenes that differ in one to three things, and what those differences are.

Knows the graph and says each difference in words; draws nothing.
"""

from dataclasses import dataclass, replace

from fusionvl.synth.scenes.combinations import Split
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.placement import lattice
from fusionvl.synth.scenes.sampling import Pair, different_pairs, make_thing, shade, visible_pairs
from fusionvl.synth.scenes.scene_graph import Background, Box, Scene, Thing
from fusionvl.synth.scenes.wording import a, noun_phrase

LEFT_FRAME = Box(0.0, 0.0, 0.49, 1.0)
SHIFT = 0.51  # from a place in the left scene to the same place in the right one


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        what: What changed, in short.
        sentence: What is on either side.
    """

    what: str
    sentence: str


def contrasting(draws: Draws, split: Split, background: Background, changes: int) -> tuple[Scene, Scene, list[Change]]:
    """Two scenes side by side, equal but for so many changes of different things."""
    cells = [place for row in lattice(draws, LEFT_FRAME, 2, 4) for place in row]
    choice = visible_pairs(split, background)
    pairs = different_pairs(draws, choice, draws.integer(3, 5), distinct="pair")
    things = [
        make_thing(draws, pair, place, draws.between(0.17, 0.19))
        for pair, place in zip(pairs, draws.some_of(cells, len(pairs)), strict=True)
    ]
    left, right, told = list(things), list(things), []
    for thing, kind in zip(draws.some_of(things, changes), draws.some_of(tuple(_CHANGES), changes), strict=True):
        spare = [pair for pair in choice if pair not in {(other.shape, other.colour) for other in left + right}]
        changed, change = _CHANGES[kind](draws, thing, spare)
        index = right.index(thing)
        right[index : index + 1] = changed
        told.append(change)
    if draws.chance(0.5):
        left, right, told = right, left, [_mirrored(change) for change in told]
    scene = Scene(background, tuple(left), frame=LEFT_FRAME)
    return scene, replace(scene, things=tuple(right)).moved(SHIFT), told


def _mirrored(change: Change) -> Change:
    """The change with left and right exchanged."""
    swapped = change.sentence.replace("left", "\0").replace("right", "left").replace("\0", "right")
    return Change(change.what, swapped)


def _recoloured(draws: Draws, thing: Thing, spare: list[Pair]) -> tuple[list[Thing], Change]:
    options = [pair for pair in spare if pair[0] == thing.shape]
    if not options:
        return _removed(draws, thing, spare)
    colour = draws.one_of(options)[1]
    sentence = f"The {thing.shape} that is {thing.colour} in the left image is {colour} in the right one."
    return [replace(thing, colour=colour, rgb=shade(draws, colour))], Change(
        f"the color of one {thing.shape}", sentence
    )


def _reshaped(draws: Draws, thing: Thing, spare: list[Pair]) -> tuple[list[Thing], Change]:
    options = [pair for pair in spare if pair[1] == thing.colour]
    if not options:
        return _removed(draws, thing, spare)
    shape = draws.one_of(options)[0]
    place = f"Where the left image has {a(noun_phrase(thing))}"
    sentence = f"{place}, the right one has {a(f'{thing.colour} {shape}')}."
    return [replace(thing, shape=shape, angle=0)], Change(f"the form of one {thing.colour} shape", sentence)


def _removed(draws: Draws, thing: Thing, spare: list[Pair]) -> tuple[list[Thing], Change]:
    what = noun_phrase(thing)
    sentence = f"There is {a(what)} in the left image, but not in the right one."
    return [], Change(f"the presence of the {what}", sentence)


_CHANGES = {"colour": _recoloured, "shape": _reshaped, "presence": _removed}
