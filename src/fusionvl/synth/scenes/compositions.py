"""Scenes composed for a purpose: a few different things, groups to count, rows and columns, patterns.

Knows which scenes suit which questions, and asks none.
"""

from collections.abc import Sequence

from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.placement import Place, lattice, scattered
from fusionvl.synth.scenes.scene_graph import WHOLE, Scene, Thing
from fusionvl.synth.scenes.things import TEXTURES, Pair, Split, draw_background, make_thing, visible_pairs

MAX_COUNT = 10
SOLID = ("circle", "square", "heart")  # their overlap is about that of the squares they are drawn in


def a_few_things(draws: Draws, split: Split) -> Scene:
    """Three to six things of different pairs, anywhere; some have a texture."""
    background = draw_background(draws)
    pairs = _different(draws, visible_pairs(split, background))
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
    return Scene(background, _made(draws, wearers, scattered(draws, WHOLE, diameters), diameters)), pair


def in_rows(draws: Draws, split: Split) -> Scene:
    """Three to six different things, each in a cell of its own of three rows and columns."""
    background = draw_background(draws)
    cells = [place for row in lattice(draws, WHOLE, 3, 3) for place in row]
    pairs = _different(draws, visible_pairs(split, background))
    return Scene(background, in_cells(draws, pairs, draws.some_of(cells, len(pairs)), 0.22, 0.27))


def overlapping(draws: Draws, split: Split) -> Scene:
    """Two large things, the second before the first and hiding less than a third of it, and one or two apart."""
    background = draw_background(draws)
    choice = visible_pairs(split, background)
    solid = [pair for pair in choice if pair[0] in SOLID]
    behind, before = draws.one_of([(x, y) for x in solid for y in solid if x[0] != y[0] and x[1] != y[1]])
    side = draws.between(0.26, 0.3)
    (x, y), *others = scattered(draws, WHOLE, [2 * side, *[0.17] * draws.integer(1, 2)])
    dx, dy = draws.one_of((-1, 1)) * draws.between(0.28, 0.31) * side, draws.between(-0.1, 0.1) * side
    pair_of_things = _made(draws, [behind, before], [(x - dx, y - dy), (x + dx, y + dy)], [side, side])
    by_shape: dict[str, Pair] = {}
    for pair in draws.shuffled([pair for pair in choice if pair[0] not in (behind[0], before[0])]):
        by_shape.setdefault(pair[0], pair)
    rest = list(by_shape.values())[: len(others)]
    return Scene(background, pair_of_things + _made(draws, rest, others, [0.17] * len(others)))


def full_rows(draws: Draws, split: Split) -> tuple[Scene, list[list[Thing]]]:
    """Different things in every cell of two rows and three columns; the scene, and the things by row."""
    background = draw_background(draws)
    cells = lattice(draws, WHOLE, 3, 2)
    pairs = draws.some_of(visible_pairs(split, background), 6)
    things = in_cells(draws, pairs, [place for row in cells for place in row], 0.22, 0.27)
    return Scene(background, things), [list(things[:3]), list(things[3:])]


def with_an_odd_one(draws: Draws, split: Split) -> Scene:
    """Four to eight equal things, and one that differs in shape or in colour."""
    background = draw_background(draws)
    choice = visible_pairs(split, background)
    possible = [(pair, kin) for pair in choice if (kin := [other for other in choice if _differ_in_one(pair, other)])]
    pair, kin = draws.one_of(possible)
    wearers = draws.shuffled([pair] * draws.integer(4, 8) + [draws.one_of(kin)])
    diameters = [0.17] * len(wearers)
    return Scene(background, _made(draws, wearers, scattered(draws, WHOLE, diameters), diameters))


def repeating(draws: Draws, split: Split) -> tuple[Scene, int]:
    """A row of four to six things in which two or three repeat; the scene, and after how many it repeats.

    The last round may be cut short, so that what comes next is not always the first.
    """
    background = draw_background(draws)
    period = draws.integer(2, 3)
    unit = draws.some_of(visible_pairs(split, background), period)
    count = draws.integer(2 * period, 6)
    (row,) = lattice(draws, WHOLE, count, 1)
    wearers = [unit[index % period] for index in range(count)]
    return Scene(background, _made(draws, wearers, row, [min(0.2, 0.72 / count)] * count)), period


def in_cells(
    draws: Draws, pairs: Sequence[Pair], cells: Sequence[Place], least: float, most: float
) -> tuple[Thing, ...]:
    """Things of these pairs, each in its cell and of a size of its own."""
    return tuple(
        make_thing(draws, pair, place, draws.between(least, most)) for pair, place in zip(pairs, cells, strict=True)
    )


def _different(draws: Draws, choice: Sequence[Pair]) -> list[Pair]:
    return draws.some_of(choice, draws.integer(3, 6))


def _differ_in_one(pair: Pair, other: Pair) -> bool:
    return (pair[0] == other[0]) != (pair[1] == other[1])


def _made(
    draws: Draws, pairs: Sequence[Pair], places: Sequence[Place], diameters: Sequence[float]
) -> tuple[Thing, ...]:
    made = zip(pairs, places, diameters, strict=True)
    return tuple(make_thing(draws, pair, place, diameter) for pair, place, diameter in made)
