"""Anything a user may call an image -> one 8-bit RGB PIL image, or one `ValueError` that names the source.

Knows file formats, colour modes and how decoders fail. Does not know views, models or the network:
an http(s) address is refused, because who downloads from where is not this module's to decide.
"""

import base64
import binascii
import io
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

ImageSource: TypeAlias = str | Path | bytes | IO[bytes] | Image.Image

# Below PIL's own warning threshold, so that whatever would make PIL warn is an error here.
MAX_PIXELS = 64_000_000

# What people have pictures in. PIL reads dozens more, with decoders that nobody looks after, and bytes can pass for
# several formats at once.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

_LONGEST_NAME = 300

# A phone photo saved as MPO carries a preview as a second frame; it is a photo, not an animation.
_STILL_FORMATS_WITH_EXTRA_FRAMES = frozenset({"MPO"})


def load_image(source: ImageSource) -> Image.Image:
    """Read one still image as upright 8-bit RGB.

    EXIF orientation is applied, transparency is composited on white, 16-bit grey is scaled to 8 bit.

    Args:
        source: a local path, encoded bytes, a `data:` URI, a binary file object or a PIL image (left unchanged).

    Returns:
        A PIL image of mode RGB.

    Raises:
        ValueError: the source is a web address, cannot be read or decoded, has no pixels or more than
            `MAX_PIXELS`, or holds several frames. The message names the source and the reason.
    """
    name = _name_of(source)
    if name.startswith(("http://", "https://")):
        raise ValueError(f"{name}: web addresses are not fetched here; download the image and pass its path or bytes.")
    try:
        if isinstance(source, Image.Image):
            return _to_upright_rgb(source)
        with Image.open(_open_bytes(source), formats=FORMATS) as image:
            return _to_upright_rgb(image)
    except Exception as error:  # hostile bytes make decoders raise nearly anything; the reason is passed on
        raise ValueError(f"cannot use {name} as an image: {_reason(error)}") from error


def _open_bytes(source: str | Path | bytes | IO[bytes]) -> IO[bytes]:
    if isinstance(source, (bytes, bytearray, memoryview)):
        content = bytes(source)
    elif isinstance(source, str) and source.startswith("data:"):
        content = _decode_data_uri(source)
    elif isinstance(source, (str, Path)):
        if Path(source).exists() and not Path(source).is_file():  # a pipe blocks, a device never ends
            raise OSError("it is not an ordinary file")
        content = Path(source).read_bytes()
    elif hasattr(source, "read"):
        content = source.read()
    else:
        raise TypeError(
            f"expected a path, bytes, a data: URI, a binary file object or a PIL image, got {type(source).__name__}"
        )
    if not content:
        raise OSError("it is empty (0 bytes)")
    return io.BytesIO(content)


def _decode_data_uri(uri: str) -> bytes:
    header, comma, payload = uri.partition(",")
    if not comma or not header.endswith(";base64"):
        raise ValueError("a data: URI must read data:<type>;base64,<content>")
    try:
        return base64.b64decode("".join(payload.split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"its base64 content is broken ({error})") from error


def _to_upright_rgb(image: Image.Image) -> Image.Image:
    width, height = image.size
    if width == 0 or height == 0:
        raise ValueError(f"it has no pixels ({width}x{height})")
    if width * height > MAX_PIXELS:
        raise ValueError(f"it has {width}x{height} = {width * height} pixels, the limit is {MAX_PIXELS}")
    frames = getattr(image, "n_frames", 1)  # PIL defines it only on formats that can hold several frames
    if frames > 1 and image.format not in _STILL_FORMATS_WITH_EXTRA_FRAMES:
        raise ValueError(f"it has {frames} frames; pass one of them as an image")
    return _to_rgb(ImageOps.exif_transpose(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = _sixteen_to_eight_bits(image)
    if image.mode == "F":
        raise ValueError("its pixels are floating point numbers of unknown range; convert it to 8 bit first")
    if image.mode == "La":  # premultiplied: PIL knows the way to RGBA only through LA
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _sixteen_to_eight_bits(image: Image.Image) -> Image.Image:
    """PIL's own conversion clips 16-bit values at 255, which turns most of a picture white."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"its integer pixels range from {values.min()} to {values.max()}, expected 0 to 65535")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _name_of(source: Any) -> str:
    if isinstance(source, str) and source.startswith("data:"):
        return "<data URI>"
    if isinstance(source, str):  # bare base64 given for a path would fill the message
        return source if len(source) <= _LONGEST_NAME else f"{source[:_LONGEST_NAME]}..."
    if isinstance(source, Path):
        return str(source)
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "<PIL image>")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "<bytes>"
    return str(getattr(source, "name", f"<{type(source).__name__}>"))


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return f"it is in none of the formats {', '.join(FORMATS)}, or damaged"
    return str(error) or type(error).__name__
