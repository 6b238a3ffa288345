"""Where things go: apart from one another, and such that who is left of whom is beyond doubt.

Knows boxes and centres only.
"""

from collections.abc import Sequence

from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.scene_graph import Box, Thing

Place = tuple[float, float]

# Of the picture's side. Between the two, a relation is neither clearly there nor clearly absent: it is not asked.
APART = 0.14
ALIGNED = 0.06
GAP = 0.025

_TRIES = 400


def scattered(draws: Draws, frame: Box, diameters: Sequence[float], taken: Sequence[Box] = ()) -> list[Place]:
    """Places for things of these diameters, anywhere in a frame, none touching another or what is there already.

    Raises:
        ValueError: If they do not fit.
    """
    for _ in range(_TRIES):
        places = _attempt(draws, frame, diameters, taken)
        if places is not None:
            return places
    raise ValueError(f"{len(diameters)} things of up to {max(diameters):.2f} do not fit into {frame}")


def _attempt(draws: Draws, frame: Box, diameters: Sequence[float], taken: Sequence[Box]) -> list[Place] | None:
    boxes = [box.grown(GAP) for box in taken]
    places: list[Place] = []
    for diameter in diameters:
        half = diameter / 2 + GAP
        for _ in range(40):
            x = draws.between(frame.left + half, frame.right - half)
            y = draws.between(frame.top + half, frame.bottom - half)
            around = Box(x - half, y - half, x + half, y + half)
            if not any(around.meets(box) for box in boxes):
                break
        else:
            return None
        boxes.append(around.grown(-GAP))
        places.append((x, y))
    return places


def lattice(draws: Draws, frame: Box, columns: int, rows: int) -> list[list[Place]]:
    """Places in rows and columns, each off the line by less than `ALIGNED` and a row or column `APART`.

    Returns:
        Rows of places, top to bottom and left to right.
    """
    width, height = frame.width / columns, frame.height / rows
    xs = [frame.left + (column + 0.5) * width + draws.between(-0.01, 0.01) for column in range(columns)]
    ys = [frame.top + (row + 0.5) * height + draws.between(-0.01, 0.01) for row in range(rows)]
    return [[(x + draws.between(-0.01, 0.01), y + draws.between(-0.01, 0.01)) for x in xs] for y in ys]


def direction(thing: Thing, other: Thing) -> str | None:
    """Where a thing is seen from another: `left`, `above right`, ...; None where it is not beyond doubt."""
    horizontal = _side(thing.x - other.x, "left", "right")
    vertical = _side(thing.y - other.y, "above", "below")
    if horizontal is None or vertical is None:
        return None
    return f"{vertical} {horizontal}".strip() or None


def _side(difference: float, less: str, more: str) -> str | None:
    if abs(difference) <= ALIGNED:
        return ""
    if abs(difference) < APART:
        return None
    return less if difference < 0 else more
