"""An image as a request names it, a data URI or a URL -> its bytes, checked -> its pixels.

Head and pixels are read as the same formats, those of `fusionvl ask`. What is done with pixels has threads of its own,
and is done for few images at a time: large ones hold up nobody else, and memory is bounded. Never opens a path.
"""

import asyncio
import base64
import binascii
import io
import logging
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from fusionvl.processing.image_loading import FORMATS, load_image
from fusionvl.serve.errors import ApiError
from fusionvl.serve.fetching import ImageFetcher
from fusionvl.serve.settings import Limits

_LOG = logging.getLogger("fusionvl.serve")
_AT_A_TIME = 2


class ImageReader:
    """Finds the bytes of images, and their pixels.

    Args:
        limits: Bytes and pixels.
        fetcher: For URLs.

    Attributes:
        threads: For whatever is done with pixels.
    """

    def __init__(self, limits: Limits, fetcher: ImageFetcher) -> None:
        self._limits = limits
        self._fetcher = fetcher
        self.threads = ThreadPoolExecutor(_AT_A_TIME, "pictures")

    async def read(self, url: str, param: str) -> bytes:
        """The encoded image at a data URI or URL.

        Args:
            url: As the request says.
            param: Where the request says so.

        Raises:
            ApiError: When it cannot be had, or is not an image within the limits.
        """
        try:
            is_inside = url[:5].lower() == "data:"
            content = await asyncio.to_thread(self._decode_uri, url) if is_inside else await self._fetcher.fetch(url)
            await asyncio.to_thread(self._check, content)
        except ApiError as error:
            error.param = param
            raise
        return content

    def pixels(self, content: bytes, param: str) -> Image.Image:
        """Decode an image that `read` found. Takes its time: to be called in one of `threads`.

        Raises:
            ApiError: When it is damaged.
        """
        try:
            return load_image(content)
        except ValueError as error:
            _LOG.info("An image was refused: %s", error)
            sentence = "The image is damaged, or its pixels are of an unusual kind: save it anew and send that"
            raise ApiError("image_unusable", sentence, param) from error

    def _check(self, content: bytes) -> None:
        """Look at an image's head.

        Raises:
            ApiError: When it is no still image of a known type, or too large.
        """
        bound = self._limits.image_pixels
        if len(content) > self._limits.image_bytes:
            raise _too_large(f"{len(content)} bytes", self._limits.image_bytes)
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                (width, height), kind = image.size, image.format
                moves = kind != "MPO" and getattr(image, "is_animated", False)  # MPO: a photo with its preview
        except Image.DecompressionBombError as error:
            raise _too_large("too many pixels", bound) from error
        except Exception as error:  # hostile bytes make decoders raise nearly anything
            known = ", ".join(FORMATS)
            raise ApiError("image_type_unsupported", f"The content is no image of a known type: {known}") from error
        if width * height > bound:
            raise _too_large(f"{width}x{height} pixels", bound)
        if moves:
            raise ApiError("image_unusable", "The image has several frames: send one of them")

    def _decode_uri(self, uri: str) -> bytes:
        header, comma, payload = uri.partition(",")
        if not comma or not header.lower().endswith(";base64"):
            raise ApiError("image_unusable", "A data URI reads data:image/png;base64,CONTENT")
        if len(payload) > self._limits.image_bytes * 4 // 3 + 4:
            raise _too_large("too many bytes", self._limits.image_bytes)
        try:
            return base64.b64decode(payload, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ApiError("image_unusable", "The base64 content of the data URI is broken: send it anew") from error


def _too_large(found: str, bound: int) -> ApiError:
    return ApiError("image_too_large", f"The image has {found}, the limit is {bound}: send a smaller one")
