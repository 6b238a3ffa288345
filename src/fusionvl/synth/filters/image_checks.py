"""Checks of image files: does it decode, how large is it, is it flat, is it blurred. Needs no model.

Scores are plain measures; what is too small or too blurred is for the selection to say.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fusionvl.synth.filters.columns import Columns, Score, as_columns
from fusionvl.synth.rows import Row

IMAGE_COLUMNS = ("image_decodes", "image_side", "image_contrast", "image_sharpness")

_BRIGHTNESS = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_EDGES = 0.01  # share of the pixels that are taken as its edges


def score_images(rows: Sequence[Row], folder: Path) -> Columns:
    """Measures the image of each row.

    Args:
        rows: Any.
        folder: The run's, which image paths are relative to.

    Returns:
        `image_decodes`: 1 or 0, and 0 also for a missing file; `image_side`: the shorter one, in pixels;
        `image_contrast`: standard deviation of the colour channel that varies most, 0 to about 128;
        `image_sharpness`: see `sharpness`. The last three are None where the image does not decode.
    """
    return as_columns(IMAGE_COLUMNS, (_scores(folder / row.image if row.image else None) for row in rows))


def _scores(path: Path | None) -> dict[str, Score]:
    image = None if path is None else decoded(path)
    if image is None:
        return {"image_decodes": 0, "image_side": None, "image_contrast": None, "image_sharpness": None}
    pixels = np.asarray(image, dtype=np.float32)
    return {
        "image_decodes": 1,
        "image_side": min(pixels.shape[:2]),
        # Purple things on dark grey have no brightness of their own, but some colour.
        "image_contrast": float(pixels.std(axis=(0, 1)).max()),
        # JPEG keeps brightness sharper than colour.
        "image_sharpness": sharpness(pixels @ _BRIGHTNESS),
    }


def decoded(path: Path) -> Image.Image | None:
    """An image in RGB; None if the file does not hold a whole one."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises for missing and broken files
        return None


def sharpness(grey: NDArray[np.float32]) -> float:
    """The mean square of the Laplacian over the strongest edges of a grey image, per variance of the whole.

    Taken at edges, because most of a plain drawing has none; relative, because a pale image is not a blurred one.
    """
    if min(grey.shape) < 3:
        return 0.0
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    squares = np.square(laplacian).ravel()
    strongest = max(1, int(_EDGES * squares.size))
    edges = np.partition(squares, -strongest)[-strongest:]
    return float(edges.mean() / max(float(grey.var()), 1.0))
