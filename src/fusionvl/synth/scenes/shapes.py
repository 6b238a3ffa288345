"""Outlines of the things: areas with corners in a square from -0.5 to 0.5, y downwards.

An area is painted in the thing's own colour or in a fixed one. Knows no pixels.
"""

import math
from dataclasses import dataclass

from fusionvl.synth.scenes.palette import Rgb

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Area:
    """A filled outline; `cut` takes away instead of painting, from the area before it."""

    points: tuple[Point, ...]
    colour: Rgb | None = None  # None: the thing's own
    cut: bool = False


def _disc(x: float, y: float, radius: float, corners: int = 48) -> tuple[Point, ...]:
    turn = 2 * math.pi / corners
    return tuple((x + radius * math.cos(i * turn), y + radius * math.sin(i * turn)) for i in range(corners))


def _star(points: int, outer: float, inner: float) -> tuple[Point, ...]:
    corners = []
    for index in range(2 * points):
        angle, radius = -math.pi / 2 + index * math.pi / points, inner if index % 2 else outer
        corners.append((radius * math.cos(angle), radius * math.sin(angle) + 0.02))
    return tuple(corners)


def _heart() -> tuple[Point, ...]:
    corners = []
    for index in range(60):
        t = index * 2 * math.pi / 60
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        corners.append((x / 35, -y / 35 - 0.05))
    return tuple(corners)


def _rectangle(left: float, top: float, right: float, bottom: float) -> tuple[Point, ...]:
    return (left, top), (right, top), (right, bottom), (left, bottom)


_CROSS = (
    (-0.15, -0.46), (0.15, -0.46), (0.15, -0.15), (0.46, -0.15), (0.46, 0.15), (0.15, 0.15),
    (0.15, 0.46), (-0.15, 0.46), (-0.15, 0.15), (-0.46, 0.15), (-0.46, -0.15), (-0.15, -0.15),
)  # fmt: skip
_ARROW = (
    (-0.47, -0.15), (0.05, -0.15), (0.05, -0.4), (0.47, 0.0), (0.05, 0.4), (0.05, 0.15), (-0.47, 0.15),
)  # fmt: skip

DARK: Rgb = (52, 48, 50)
GLASS: Rgb = (196, 226, 240)
TRUNK: Rgb = (112, 76, 46)
LEAVES: Rgb = (48, 124, 60)

OUTLINES: dict[str, tuple[Area, ...]] = {
    "circle": (Area(_disc(0, 0, 0.45)),),
    "square": (Area(_rectangle(-0.4, -0.4, 0.4, 0.4)),),
    "triangle": (Area(((0, -0.45), (0.43, 0.25), (-0.43, 0.25))),),
    "star": (Area(_star(5, 0.48, 0.2)),),
    "heart": (Area(_heart()),),
    "diamond": (Area(((0, -0.5), (0.31, 0), (0, 0.5), (-0.31, 0))),),
    "cross": (Area(_CROSS),),
    "ring": (Area(_disc(0, 0, 0.46)), Area(_disc(0, 0, 0.25), cut=True)),
    "crescent": (Area(_disc(-0.02, 0, 0.46)), Area(_disc(0.2, -0.04, 0.37), cut=True)),
    "arrow": (Area(_ARROW),),
    "house": (
        Area(_rectangle(-0.38, -0.1, 0.38, 0.45)),
        Area(((-0.48, -0.08), (0, -0.48), (0.48, -0.08)), DARK),
        Area(_rectangle(-0.08, 0.15, 0.1, 0.45), DARK),
        Area(_rectangle(-0.3, 0.03, -0.14, 0.19), GLASS),
        Area(_rectangle(0.16, 0.03, 0.32, 0.19), GLASS),
    ),
    "car": (
        Area(_rectangle(-0.48, 0.05, 0.48, 0.32)),
        Area(((-0.3, 0.07), (-0.2, -0.18), (0.18, -0.18), (0.32, 0.07))),
        Area(((-0.2, 0.04), (-0.14, -0.12), (-0.02, -0.12), (-0.02, 0.04)), GLASS),
        Area(((0.04, 0.04), (0.04, -0.12), (0.14, -0.12), (0.22, 0.04)), GLASS),
        Area(_disc(-0.27, 0.32, 0.13), DARK),
        Area(_disc(0.27, 0.32, 0.13), DARK),
    ),
    "boat": (
        Area(((-0.46, 0.2), (0.46, 0.2), (0.28, 0.45), (-0.28, 0.45))),
        Area(_rectangle(-0.02, -0.48, 0.03, 0.21), TRUNK),
        Area(((0.06, -0.44), (0.4, 0.12), (0.06, 0.12)), (252, 250, 240)),
        Area(((-0.05, -0.3), (-0.05, 0.12), (-0.34, 0.12)), (252, 250, 240)),
    ),
    "tree": (
        Area(_rectangle(-0.07, 0.1, 0.07, 0.47), TRUNK),
        Area(_disc(0, -0.16, 0.3), LEAVES),
        Area(_disc(-0.19, 0.0, 0.2), LEAVES),
        Area(_disc(0.19, 0.0, 0.2), LEAVES),
    ),
}

SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring", "crescent", "arrow")
"""The geometric ones, each of its own colour alone."""

BUILT = ("house", "car", "boat")
"""Things of a landscape that come in any colour."""

# How far they may be turned without being taken for something else.
MAX_TURN = {"square": 12, "star": 20, "heart": 12, "diamond": 8, "cross": 12, "triangle": 10}
