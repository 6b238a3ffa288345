"""Draws the parts of a scene, a background and things that stand out from it, and says which split may hold what.

The combinations of shape and colour of training and of held-out scenes are disjoint, while every shape and every
colour occurs in both: a model that answers about held-out scenes has learnt the parts, not the pairs. Knows no pixels
and no language.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.palette import BACKDROPS, COLOURS, Rgb, visible_on
from fusionvl.synth.scenes.placement import Place
from fusionvl.synth.scenes.scene_graph import Background, Thing
from fusionvl.synth.scenes.shapes import BUILT, MAX_TURN, SHAPES

Split = Literal["train", "held-out"]
SPLITS: tuple[Split, ...] = get_args(Split)
Pair: TypeAlias = tuple[str, str]
"""A shape and a colour."""

TEXTURES = ("striped", "dotted", "checked")
_EVERY = 5  # one combination of so many is held out
_FADES = (
    ("pale blue", "white"), ("pale blue", "cream"), ("cream", "pale pink"), ("white", "pale green"),
    ("light gray", "white"), ("pale pink", "pale blue"), ("navy blue", "black"),
)  # fmt: skip
_CHECKS = (
    ("white", "light gray"), ("cream", "white"), ("pale blue", "white"), ("pale green", "white"),
    ("pale pink", "white"), ("black", "dark gray"),
)  # fmt: skip
_SHADE = 9


def is_held_out(shape: str, colour: str) -> bool:
    """Whether the pair occurs in held-out scenes only; if not, it occurs in training scenes only."""
    shape_number, colour_number = (SHAPES + BUILT).index(shape), tuple(COLOURS).index(colour)
    return (shape_number + 2 * colour_number) % _EVERY == 0


def pairs(split: Split, colours: Sequence[str], shapes: Sequence[str] = SHAPES) -> list[Pair]:
    """The pairs of a split, of some colours and shapes."""
    held_out = split == "held-out"
    return [(shape, colour) for shape in shapes for colour in colours if is_held_out(shape, colour) == held_out]


def words_of(split: Split, words: Sequence[str]) -> list[str]:
    """Those of the words that occur in a split, and only there; capitals make no difference."""
    return [word for word in words if _is_held_out_word(word.upper()) == (split == "held-out")]


@functools.cache
def _is_held_out_word(word: str) -> bool:
    return hashlib.sha256(word.encode()).digest()[0] % _EVERY == 0


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
        shape, colour, shade(draws, colour), diameter, *place, size, texture, angle=draws.integer(-most, most)
    )
