"""The images of a run folder: JPEG files that appear whole or not at all.

Knows rows' names and pixels; knows no backend.
"""

import io
import os
from pathlib import Path

from PIL import Image

from fusionvl.synth.rows import Row

IMAGE_FOLDER = "images"
_QUALITY = 92


def encode(image: Image.Image) -> bytes:
    """An image as JPEG, colours at full resolution: thin coloured shapes would bleed otherwise."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


def keep_image(folder: Path, shard: int, row: Row, image: bytes) -> str:
    """Write the image of a row; returns its path relative to the run folder.

    Raises:
        OSError: When it cannot be written; no file of its name is there then.
    """
    relative = f"{IMAGE_FOLDER}/{shard:05d}/{row.id}.jpg"
    path = folder / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    try:
        unfinished.write_bytes(image)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return relative
