"""Scenes composed for a purpose: a few different things, groups to count, rows and columns, patterns, signs.

Knows which scenes suit which questions, and asks none.
"""

from fusionvl.synth.scenes.combinations import Split, words_of
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.lexicon import WORDS, made_up_name
from fusionvl.synth.scenes.placement import lattice, scattered
from fusionvl.synth.scenes.sampling import (
    TEXTURES,
    Pair,
    different_pairs,
    draw_background,
    make_thing,
    visible_pairs,
)
from fusionvl.synth.scenes.scene_graph import WHOLE, Scene, Thing
from fusionvl.synth.scenes.signs import sign_scene

MAX_COUNT = 10
_SOLID = ("circle", "square", "heart")  # their overlap is about that of the squares they are drawn in


def a_few_things(draws: Draws, split: Split) -> Scene:
    """Three to six things of different pairs, anywhere; some have a texture."""
    background = draw_background(draws)
    pairs = different_pairs(draws, visible_pairs(split, background), draws.integer(3, 6))
    sizes = [draws.one_of(("small", "large")) for _ in pairs]
    diameters = [draws.between(0.15, 0.17) if size == "small" else draws.between(0.24, 0.28) for size in sizes]
    textured = draws.chance(0.35)
    things = []
    for pair, size, diameter, place in zip(pairs, sizes, diameters, scattered(draws, WHOLE, diameters), strict=True):
        texture = draws.one_of(("plain", *TEXTURES)) if textured and size == "large" else "plain"
        things.append(make_thing(draws, pair, place, diameter, size, texture))
    return Scene(background, tuple(things))


def groups(draws: Draws, split: Split, wanted: int) -> tuple[Scene, Pair]:
    """So many things of one pair, 0 to 10, among others that share its shape or colour.

    Returns:
        The scene and the pair; the things are in random order.
    """
    background = draw_background(draws)
    choice = visible_pairs(split, background)
    pair = draws.one_of(choice)
    kin = [other for other in choice if other != pair and (other[0] == pair[0] or other[1] == pair[1])]
    others = [other for other in choice if other != pair]
    few = max(1 if wanted == 0 else 0, 1 if wanted < MAX_COUNT and draws.chance(0.8) else 0)
    rest: list[Pair] = []
    for _ in range(few * draws.integer(1, 2)):
        rest += [draws.one_of(kin if kin and draws.chance(0.7) else others)] * draws.integer(1, 3)
    wearers = draws.shuffled([pair] * wanted + rest[: max(few, 13 - wanted)])
    widest = 0.2 if len(wearers) <= 6 else 0.17 if len(wearers) <= 9 else 0.15
    diameters = [draws.between(0.14, widest) for _ in wearers]
    places = scattered(draws, WHOLE, diameters)
    things = [
        make_thing(draws, wearer, place, diameter)
        for wearer, place, diameter in zip(wearers, places, diameters, strict=True)
    ]
    return Scene(background, tuple(things)), pair


def in_rows(draws: Draws, split: Split) -> Scene:
    """Three to six different things, each in a cell of its own of three rows and columns."""
    background = draw_background(draws)
    cells = [place for row in lattice(draws, WHOLE, 3, 3) for place in row]
    pairs = different_pairs(draws, visible_pairs(split, background), draws.integer(3, 6))
    places = draws.some_of(cells, len(pairs))
    things = [
        make_thing(draws, pair, place, draws.between(0.22, 0.27)) for pair, place in zip(pairs, places, strict=True)
    ]
    return Scene(background, tuple(things))


def overlapping(draws: Draws, split: Split) -> Scene:
    """Two large things, the second before the first and hiding less than a third of it, and one or two apart."""
    background = draw_background(draws)
    choice = visible_pairs(split, background)
    solid = [pair for pair in choice if pair[0] in _SOLID]
    possible = [(one, two) for one in solid for two in solid if one[0] != two[0] and one[1] != two[1]]
    behind, before = draws.one_of(possible)
    side = draws.between(0.26, 0.3)
    (x, y), *others = scattered(draws, WHOLE, [2 * side, *[0.17] * draws.integer(1, 2)])
    dx, dy = draws.one_of((-1, 1)) * draws.between(0.28, 0.31) * side, draws.between(-0.1, 0.1) * side
    things = [
        make_thing(draws, behind, (x - dx, y - dy), side),
        make_thing(draws, before, (x + dx, y + dy), side),
    ]
    rest = [pair for pair in choice if pair[0] not in (behind[0], before[0])]
    pairs = different_pairs(draws, rest, len(others), distinct="shape")
    things += [make_thing(draws, pair, place, 0.17) for pair, place in zip(pairs, others, strict=True)]
    return Scene(background, tuple(things))


def full_rows(draws: Draws, split: Split) -> tuple[Scene, list[list[Thing]]]:
    """Different things in every cell of two rows and three columns; the scene, and the things by row."""
    background = draw_background(draws)
    cells = lattice(draws, WHOLE, 3, 2)
    wearers = iter(different_pairs(draws, visible_pairs(split, background), 6))
    rows = [[make_thing(draws, next(wearers), place, draws.between(0.22, 0.27)) for place in row] for row in cells]
    return Scene(background, tuple(thing for row in rows for thing in row)), rows


def with_an_odd_one(draws: Draws, split: Split) -> Scene:
    """Four to eight equal things, and one that differs in shape or in colour."""
    background = draw_background(draws)
    choice = visible_pairs(split, background)
    possible = [(pair, kin) for pair in choice if (kin := [other for other in choice if _differ_in_one(pair, other)])]
    pair, kin = draws.one_of(possible)
    wearers = draws.shuffled([pair] * draws.integer(4, 8) + [draws.one_of(kin)])
    diameters = [0.17] * len(wearers)
    places = scattered(draws, WHOLE, diameters)
    things = [make_thing(draws, wearer, place, 0.17) for wearer, place in zip(wearers, places, strict=True)]
    return Scene(background, tuple(things))


def _differ_in_one(pair: Pair, other: Pair) -> bool:
    return (pair[0] == other[0]) != (pair[1] == other[1])


def repeating(draws: Draws, split: Split) -> tuple[Scene, int]:
    """A row of six things in which two or three repeat; the scene, and after how many it repeats.

    The last round may be cut short, so that what comes next is not always the first.
    """
    background = draw_background(draws)
    period = draws.integer(2, 3)
    unit = different_pairs(draws, visible_pairs(split, background), period)
    count = draws.integer(2 * period, 6)
    (row,) = lattice(draws, WHOLE, count, 1)
    side = min(0.2, 0.72 / count)
    things = [make_thing(draws, unit[index % period], place, side) for index, place in enumerate(row)]
    return Scene(background, tuple(things)), period


def a_few_signs(draws: Draws, split: Split, most: int = 3) -> tuple[Scene, list[str]]:
    """One to three signs, each with a word, a made-up name, a number or two lines; and texts like theirs."""
    background = draw_background(draws)
    texts = [_text(draws, split) for _ in range(draws.integer(1, most))]
    alike = [" ".join(_text(draws, split)) for _ in range(8)]
    scene = sign_scene(draws, background, texts)
    return scene, sorted(set(alike) - {" ".join(text) for text in texts})


def _text(draws: Draws, split: Split) -> list[str]:
    words = words_of(split, WORDS)
    form = draws.integer(0, 4)
    if form == 0:
        return [made_up_name(draws, split)]
    if form == 1:
        return [draws.one_of(words), str(draws.integer(1, 999))]
    if form == 2:
        return [f"{draws.one_of(words)} {draws.integer(1, 99)}"]
    return draws.some_of(words, 1 if form == 3 else 2)
