"""What is in a picture: backgrounds, things and signs with their places.

Lengths are shares of the picture's side, so one graph can be drawn at any size; x grows to the right and y downwards.
Knows no pixels and no language.
"""

from dataclasses import dataclass

from fusionvl.synth.scenes.palette import Rgb


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle that stands upright."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """From left to right."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """From top to bottom."""
        return self.bottom - self.top

    def grown(self, margin: float) -> "Box":
        """The box with a margin around it; a negative one shrinks it."""
        return Box(self.left - margin, self.top - margin, self.right + margin, self.bottom + margin)

    def contains(self, other: "Box") -> bool:
        """Whether the other box lies within."""
        return (
            self.left <= other.left
            and self.top <= other.top
            and self.right >= other.right
            and self.bottom >= other.bottom
        )

    def meets(self, other: "Box") -> bool:
        """Whether the boxes share any area."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


WHOLE = Box(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Thing:
    """An object.

    Attributes:
        shape: Its name in `shapes.OUTLINES`.
        colour: Its name in `palette.COLOURS`.
        rgb: The shade of that colour it is drawn in.
        diameter: Side of the square it is drawn in.
        x: Centre.
        y: Centre.
        size: `small` or `large`; told where a scene has both.
        texture: `plain`, `striped`, `dotted` or `checked`.
        angle: Degrees counter-clockwise.
    """

    shape: str
    colour: str
    rgb: Rgb
    diameter: float
    x: float
    y: float
    size: str = "large"
    texture: str = "plain"
    angle: int = 0

    @property
    def box(self) -> Box:
        """The square it is drawn in."""
        half = self.diameter / 2
        return Box(self.x - half, self.y - half, self.x + half, self.y + half)


@dataclass(frozen=True, slots=True)
class Sign:
    """A board with lines of text, as large as they fit.

    Attributes:
        box: The board.
        lines: The text, top to bottom.
        font: A name in `fonts.FONTS`.
        board: Name of the board's colour in `palette.COLOURS`.
        ink: Name of the letters' colour.
        language: The language of the text.
    """

    box: Box
    lines: tuple[str, ...]
    font: str
    board: str
    ink: str
    language: str = "English"

    @property
    def text(self) -> str:
        """All of it on one line."""
        return " ".join(self.lines)


@dataclass(frozen=True, slots=True)
class Background:
    """One colour, two that fade into each other from top to bottom, or two as a checkerboard.

    Attributes:
        style: `plain`, `fading` or `checked`.
        names: One name in `palette.BACKDROPS`, or two.
    """

    style: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Landscape:
    """A place outdoors, seen at some time of the day in some weather.

    Attributes:
        setting: A name in `scenery.SETTINGS`.
        time: `day`, `sunset` or `night`.
        weather: `clear`, `cloudy`, `rainy` or `snowy`.
        horizon: Where sky and ground meet.
        light: The sun's or moon's place, if there is one in the sky.
        clouds: Their places.
    """

    setting: str
    time: str
    weather: str
    horizon: float
    light: Box | None
    clouds: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """One image: what is behind, things from back to front, signs on top.

    Attributes:
        frame: The part of the picture it fills.
    """

    background: Background | Landscape
    things: tuple[Thing, ...] = ()
    signs: tuple[Sign, ...] = ()
    frame: Box = WHOLE


Picture = tuple[Scene, ...]
"""One scene, or two side by side."""
