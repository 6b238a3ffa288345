"""Draws the parts of a scene: a background, then things that stand out from it.

Knows which combinations a split may use; knows no pixels and no language.
"""

from collections.abc import Sequence

from fusionvl.synth.scenes.combinations import Split, pairs
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.palette import BACKDROPS, COLOURS, Rgb, visible_on
from fusionvl.synth.scenes.placement import Place
from fusionvl.synth.scenes.scene_graph import Background, Thing
from fusionvl.synth.scenes.shapes import MAX_TURN

Pair = tuple[str, str]

_FADES = (
    ("pale blue", "white"), ("pale blue", "cream"), ("cream", "pale pink"), ("white", "pale green"),
    ("light gray", "white"), ("pale pink", "pale blue"), ("navy blue", "black"),
)  # fmt: skip
_CHECKS = (
    ("white", "light gray"), ("cream", "white"), ("pale blue", "white"), ("pale green", "white"),
    ("pale pink", "white"), ("black", "dark gray"),
)  # fmt: skip
_SHADE = 9
TEXTURES = ("striped", "dotted", "checked")


def draw_background(draws: Draws, plain: float = 0.6) -> Background:
    """A background; the probability that it is of one colour may be given."""
    if draws.chance(plain):
        return Background("plain", (draws.one_of(tuple(BACKDROPS)),))
    if draws.chance(0.5):
        names = draws.one_of(_FADES)
        return Background("fading", names if draws.chance(0.5) else names[::-1])
    return Background("checked", draws.one_of(_CHECKS))


def visible_pairs(split: Split, background: Background) -> list[Pair]:
    """The pairs of a split whose colours stand out from a background."""
    return pairs(split, visible_on(tuple(BACKDROPS[name] for name in background.names)))


def different_pairs(draws: Draws, choice: Sequence[Pair], count: int, distinct: str = "pair") -> list[Pair]:
    """Different pairs; with `distinct="shape"` or `"colour"`, no two share that attribute.

    Raises:
        ValueError: If there are not so many.
    """
    chosen: list[Pair] = []
    used: set[str | Pair] = set()
    for pair in draws.shuffled(choice):
        keys: dict[str, str | Pair] = {"pair": pair, "shape": pair[0], "colour": pair[1]}
        key = keys[distinct]
        if key not in used and len(chosen) < count:
            used.add(key)
            chosen.append(pair)
    if len(chosen) < count:
        raise ValueError(f"asked for {count} pairs of different {distinct}, found {len(chosen)}")
    return chosen


def shade(draws: Draws, colour: str) -> Rgb:
    """A shade of a named colour, too close to it to be called otherwise."""
    lighter = draws.integer(-_SHADE, _SHADE)
    red, green, blue = (min(255, max(0, part + lighter)) for part in COLOURS[colour])
    return red, green, blue


def make_thing(
    draws: Draws, pair: Pair, place: Place, diameter: float, size: str = "large", texture: str = "plain"
) -> Thing:
    """A thing of a pair at a place, in some shade and slightly turned."""
    shape, colour = pair
    most = MAX_TURN.get(shape, 0)
    return Thing(
        shape=shape,
        colour=colour,
        rgb=shade(draws, colour),
        diameter=diameter,
        x=place[0],
        y=place[1],
        size=size,
        texture=texture,
        angle=draws.integer(-most, most),
    )
