"""The named colours of objects and backgrounds, and how far apart two colours look.

Objects wear the eleven basic colour words of English; backgrounds have names of their own, paler or darker.
"""

import functools

Rgb = tuple[int, int, int]

COLOURS: dict[str, Rgb] = {
    "red": (214, 36, 40),
    "orange": (244, 132, 24),
    "yellow": (250, 220, 40),
    "green": (36, 152, 62),
    "blue": (28, 104, 232),
    "purple": (118, 34, 150),
    "pink": (248, 142, 192),
    "brown": (118, 72, 36),
    "black": (22, 22, 24),
    "white": (250, 250, 250),
    "gray": (132, 132, 132),
}

BACKDROPS: dict[str, Rgb] = {
    "white": (250, 250, 248),
    "light gray": (218, 220, 222),
    "cream": (250, 238, 208),
    "pale blue": (200, 222, 246),
    "pale green": (208, 236, 204),
    "pale pink": (250, 222, 226),
    "dark gray": (66, 68, 72),
    "navy blue": (26, 36, 78),
    "black": (14, 14, 16),
}

# CIE Lab units; below it a colour on a background, or two colours side by side, could be taken for one another.
FAR_APART = 40.0


@functools.cache
def lab(colour: Rgb) -> tuple[float, float, float]:
    """CIE Lab coordinates of an sRGB colour (D65)."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in colour)]
    weights = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    ratios = [sum(w * c for w, c in zip(row, linear, strict=True)) / n for row, n in zip(weights, white, strict=True)]
    x, y, z = (r ** (1 / 3) if r > 0.008856 else 7.787 * r + 16 / 116 for r in ratios)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def distance(first: Rgb, second: Rgb) -> float:
    """How different two colours look: their distance in CIE Lab."""
    return float(sum((a - b) ** 2 for a, b in zip(lab(first), lab(second), strict=True)) ** 0.5)


def nearest_colour(colour: Rgb) -> str:
    """The name of the object colour that looks most like this one."""
    return min(COLOURS, key=lambda name: distance(COLOURS[name], colour))


def mixed(first: Rgb, second: Rgb, share: float) -> Rgb:
    """The first colour with a share of the second in it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def is_dark(colour: Rgb) -> bool:
    """Whether light lines show better on it than dark ones."""
    return lab(colour)[0] < 60


def visible_on(backgrounds: tuple[Rgb, ...]) -> list[str]:
    """The object colours that are far apart from every one of the backgrounds."""
    return [
        name for name, colour in COLOURS.items() if all(distance(colour, other) >= FAR_APART for other in backgrounds)
    ]
