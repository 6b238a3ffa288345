"""The twelve kinds of rows the engine makes, and the training stage each is for.

Knows no prompts, no answers' formats and no pictures.
"""

from dataclasses import dataclass
from typing import Literal

Stage = Literal["alignment", "instruction"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of row.

    Attributes:
        name: What recipes and rows call it.
        stage: What its rows are for: `alignment` (stages 1 and 1.5) or `instruction` (stage 2).
        about: What its questions ask, in a few words.
        pictures: How many pictures a row describes; two are drawn side by side in one image.
    """

    name: str
    stage: Stage
    about: str
    pictures: int = 1


_ALL = (
    Kind("SynthColor", "alignment", "colours of things"),
    Kind("SynthCount", "alignment", "how many of a thing there are"),
    Kind("SynthSpatial", "alignment", "where things are to each other"),
    Kind("SynthScene", "alignment", "the whole scene: place, time, weather, mood"),
    Kind("SynthText", "alignment", "what is written in the picture"),
    Kind("MultiChoice", "instruction", "one question with four options"),
    Kind("ConvShort", "instruction", "several questions with short answers"),
    Kind("ConvLong", "instruction", "several questions with detailed answers"),
    Kind("ContrastShort", "instruction", "differences of two similar pictures, in short", pictures=2),
    Kind("ContrastLong", "instruction", "differences of two similar pictures, in detail", pictures=2),
    Kind("Reasoning", "instruction", "what follows from the picture, step by step"),
    Kind("TextQA", "instruction", "questions that need the written text to be understood"),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
"""Every kind, by its name."""


def kind_named(name: str) -> Kind:
    """The kind of this name.

    Raises:
        ValueError: When there is none; names all there are.
    """
    if name not in KINDS:
        raise ValueError(f"There is no kind {name!r}, only {', '.join(KINDS)}")
    return KINDS[name]
