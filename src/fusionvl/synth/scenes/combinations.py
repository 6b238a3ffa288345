"""Which shapes may wear which colours, and which words may be written, in which split.

The combinations of training and of held-out scenes are disjoint, while every shape and every colour occurs in both: a
model that answers about held-out scenes has learnt the parts, not the pairs.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal, get_args

from fusionvl.synth.scenes.palette import COLOURS
from fusionvl.synth.scenes.shapes import BUILT, SHAPES

Split = Literal["train", "held-out"]
SPLITS: tuple[Split, ...] = get_args(Split)

_EVERY = 5  # one combination of so many is held out


def is_held_out(shape: str, colour: str) -> bool:
    """Whether the pair occurs in held-out scenes only; if not, it occurs in training scenes only."""
    shape_number, colour_number = (SHAPES + BUILT).index(shape), tuple(COLOURS).index(colour)
    return (shape_number + 2 * colour_number) % _EVERY == 0


def pairs(split: Split, colours: Sequence[str], shapes: Sequence[str] = SHAPES) -> list[tuple[str, str]]:
    """The (shape, colour) pairs of a split, of some colours and shapes."""
    held_out = split == "held-out"
    return [(shape, colour) for shape in shapes for colour in colours if is_held_out(shape, colour) == held_out]


def is_held_out_word(word: str) -> bool:
    """Whether a word occurs in held-out scenes only, not in training scenes; capitals make no difference."""
    return hashlib.sha256(word.upper().encode()).digest()[0] % _EVERY == 0


def words_of(split: Split, words: Sequence[str]) -> list[str]:
    """The words of a split."""
    held_out = split == "held-out"
    return [word for word in words if is_held_out_word(word) == held_out]
