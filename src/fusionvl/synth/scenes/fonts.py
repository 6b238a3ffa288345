"""Typefaces that exist wherever this package's `synth` extra is installed: those matplotlib brings along.

Knows how large a text may be in a box; draws nothing.
"""

import functools
from pathlib import Path

from PIL import ImageFont

from fusionvl.data.extras import import_extra

# All of them have the Latin, Greek and Cyrillic letters of lexicon.py.
FONTS = {
    "sans": "DejaVuSans.ttf",
    "sans bold": "DejaVuSans-Bold.ttf",
    "sans oblique": "DejaVuSans-BoldOblique.ttf",
    "serif": "DejaVuSerif.ttf",
    "serif bold": "DejaVuSerif-Bold.ttf",
    "serif italic": "DejaVuSerif-BoldItalic.ttf",
    "mono": "DejaVuSansMono-Bold.ttf",
    "roman": "STIXGeneralBol.ttf",
}

LINE_HEIGHT = 1.25  # of the font size
_REFERENCE = 100


@functools.cache
def font_file(name: str) -> Path:
    """The file of a typeface.

    Raises:
        ModuleNotFoundError: If matplotlib, which brings the files, is not installed.
    """
    matplotlib = import_extra("matplotlib", extra="synth", needed_for="Drawing text")
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / FONTS[name]


@functools.lru_cache(1024)
def font(name: str, pixels: int) -> ImageFont.FreeTypeFont:
    """A typeface at a size. Simple layout, so that it is the same with and without a shaping library."""
    return ImageFont.truetype(font_file(name), pixels, layout_engine=ImageFont.Layout.BASIC)


def _width(name: str, pixels: int, line: str) -> float:
    left, _, right, _ = font(name, pixels).getbbox(line)
    return right - left


@functools.lru_cache(4096)
def _reference_width(name: str, lines: tuple[str, ...]) -> float:
    return max(_width(name, _REFERENCE, line) for line in lines)


def fitting_size(name: str, lines: tuple[str, ...], width: float, height: float) -> int:
    """The largest size in whole pixels at which the lines fit, at least 1."""
    by_width = width / _reference_width(name, lines) * _REFERENCE
    by_height = height / (LINE_HEIGHT * len(lines))
    pixels = max(1, int(min(by_width, by_height)))
    while pixels > 1 and any(_width(name, pixels, line) > width for line in lines):
        pixels -= 1  # small letters are wider than the same letters made smaller: hinting rounds them up
    return pixels
