"""Everyday things that real artists have drawn, by name and kind, and the scenes they stand in.

Which two things may stand together is what the splits divide: a fifth of all pairs of names is seen in held-out scenes
only. What a thing looks like is another matter, see `drawings`. Knows no pixels, no files and no language.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple

import yaml

from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.placement import Place, lattice, scattered
from fusionvl.synth.scenes.scene_graph import WHOLE, Background, Scene, Thing
from fusionvl.synth.scenes.things import Split, draw_background

MAX_ALIKE = 6
_EVERY = 5  # one pair of names of so many is held out
_MAX_TURN = 20  # degrees either way
_SMALL = (0.11, 0.15)
_CELLS = {3: 0.28, 2: 0.45}
"""Rows and columns of a lattice, and the largest diameter at which things in its cells neither touch nor are cut."""
_SIDES = {1: (0.35, 0.9), 2: (0.24, 0.45), 3: (0.22, 0.4), 4: (0.2, 0.36), 5: (0.22, 0.28), 6: (0.2, 0.28)}
"""Diameters of things, least and most, by how many there are."""


@dataclass(frozen=True, slots=True)
class DrawnThing(Thing):
    """A thing shown by an artist's drawing; `shape` is its name, its colours are the artist's.

    Attributes:
        pick: Which of the drawings there are of it, as a share of their number.
        mirrored: Whether left and right are exchanged.
    """

    pick: float = 0.0
    mirrored: bool = False


def characters() -> dict[str, str]:
    """Names with the characters that show them, all things of all kinds."""
    return _listed().shown


def kind_of() -> dict[str, str]:
    """Names with their kind: `animal`, `food`, `vehicle`, `instrument`, `plant` or `other`."""
    return _listed().kinds


def of_kind(kind: str) -> list[str]:
    """The names of a kind."""
    return [name for name, its in kind_of().items() if its == kind]


def mistakable(name: str) -> frozenset[str]:
    """Other things that some would call by this name or count with it, or whose drawings show one of it."""
    return _listed().mistakable[name]


def slender() -> frozenset[str]:
    """Names of things whose drawings fill so little of the square around them that length is no size."""
    return _listed().slender


class _Things(NamedTuple):
    """What `drawn_things.yaml` lists, by name."""

    shown: dict[str, str]
    kinds: dict[str, str]
    mistakable: dict[str, frozenset[str]]
    slender: frozenset[str]


@functools.cache
def _listed() -> _Things:
    path = files("fusionvl.synth.scenes") / "drawn_things.yaml"
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    shown = {name: drawn for things in read["kinds"].values() for name, drawn in things.items()}
    kinds = {name: kind for kind, things in read["kinds"].items() for name in things}
    near = {name: {other for group in read["mistakable"] if name in group for other in group} for name in shown}
    apart = {name: frozenset(others - {name}) for name, others in near.items()}
    return _Things(shown, kinds, apart, frozenset(read["slender"]))


@functools.cache
def is_held_out_pair(one: str, other: str) -> bool:
    """Whether two things stand together in held-out scenes only; if not, they may in training scenes only."""
    return hashlib.sha256("/".join(sorted((one, other))).encode()).digest()[0] % _EVERY == 0


def one_drawn(draws: Draws, split: Split) -> Scene:
    """One thing, large, anywhere. There are no pairs to hold out: the splits differ in scenes, not in things."""
    return _scene(draws, [draws.one_of(list(characters()))], _anywhere)


def several_drawn(draws: Draws, split: Split, count: int | None = None) -> Scene:
    """So many different things, two to six if not told: half of the time anywhere, else in the cells of a lattice."""
    count = count or draws.one_of((2, 2, 3, 3, 3, 4, 4, 4, 5, 6))
    place = _anywhere if draws.chance(0.5) else _in_cells
    return _scene(draws, _together(draws, split, count), place)


def alike_drawn(draws: Draws, split: Split) -> Scene:
    """One to five of one thing, and up to two others, six at most."""
    wanted = draws.integer(1, MAX_ALIKE - 1)
    one, *others = _together(draws, split, 1 + draws.integer(0, min(2, MAX_ALIKE - wanted)))
    return _scene(draws, draws.shuffled([one] * wanted + others), _anywhere)


def small_drawn(draws: Draws, split: Split) -> Scene:
    """Four to seven different things in the cells of a lattice, so small that it takes the tiles to name them."""
    return _scene(draws, _together(draws, split, draws.integer(4, 7)), _in_cells, _SMALL)


def _together(draws: Draws, split: Split, count: int) -> list[str]:
    """Names of different things, none to be mistaken for another.

    In training no two of them are a held-out pair; in held-out scenes each one is with the first.
    """
    names = [draws.one_of(list(characters()))]
    while len(names) < count:
        name = draws.one_of(list(characters()))
        if name in names or mistakable(name).intersection(names):
            continue
        if split == "held-out":
            fits = is_held_out_pair(names[0], name)
        else:
            fits = not any(is_held_out_pair(name, other) for other in names)
        if fits:
            names.append(name)
    return draws.shuffled(names)


def _scene(
    draws: Draws,
    names: Sequence[str],
    places: Callable[[Draws, Sequence[float]], list[Place]],
    between: tuple[float, float] | None = None,
) -> Scene:
    background = _ground(draws)
    least, most = between or _SIDES[len(names)]
    sides = [draws.between(least, most) for _ in names]
    made = zip(names, sides, places(draws, sides), strict=True)
    return Scene(background, tuple(_thing(draws, name, side, place) for name, side, place in made))


def _ground(draws: Draws) -> Background:
    """A background on which neither white nor black things are lost."""
    while True:
        background = draw_background(draws)
        if "black" not in background.names and background.names != ("white",):
            return background


def _thing(draws: Draws, name: str, side: float, place: Place) -> DrawnThing:
    x, y = place
    turn = draws.integer(-_MAX_TURN, _MAX_TURN) if draws.chance(0.5) else 0
    pick, mirrored = draws.between(0.0, 1.0), draws.chance(0.5)
    return DrawnThing(name, "plain", (0, 0, 0), side, x, y, angle=turn, pick=pick, mirrored=mirrored)


def _anywhere(draws: Draws, sides: Sequence[float]) -> list[Place]:
    return scattered(draws, WHOLE, sides)


def _in_cells(draws: Draws, sides: Sequence[float]) -> list[Place]:
    """Cells of three rows and columns where things are small enough for them, else of two."""
    across = next(across for across, most in _CELLS.items() if max(sides) <= most)
    cells = [place for row in lattice(draws, WHOLE, across, across) for place in row]
    return draws.some_of(cells, len(sides))
