"""Image checks: does the file decode, how large is it, is it flat, is it blurred. Knows no thresholds."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fusionvl.synth.filters.filter import Scores
from fusionvl.synth.rows import Row

IMAGE_COLUMNS = {"image_decodes": float, "image_side": float, "image_contrast": float, "image_sharpness": float}

_EDGES = 0.01  # share of the pixels that are taken as its edges
_BRIGHTNESS = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def score_image(row: Row, folder: Path) -> Scores:
    """Looks at the image of a row.

    Returns:
        `image_decodes`: 1 or 0, and 0 also for a missing file; `image_side`: the shorter one, in pixels;
        `image_contrast`: standard deviation of the colour channel that varies most, 0 to about 128;
        `image_sharpness`: see `sharpness`. The last three are None where the image does not decode.
    """
    image = decoded(row, folder)
    if image is None:
        return dict.fromkeys(IMAGE_COLUMNS) | {"image_decodes": 0}
    pixels = np.asarray(image, dtype=np.float32)
    return {
        "image_decodes": 1,
        "image_side": min(pixels.shape[:2]),
        # Purple things on dark grey have no brightness of their own, but some colour.
        "image_contrast": float(pixels.std(axis=(0, 1)).max()),
        # JPEG keeps brightness sharper than colour.
        "image_sharpness": sharpness(pixels @ _BRIGHTNESS),
    }


def decoded(row: Row, folder: Path) -> Image.Image | None:
    """The image of a row, in RGB; None if it has none, or its file does not hold a whole one."""
    if row.image is None:
        return None
    try:
        with Image.open(folder / row.image) as image:
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
