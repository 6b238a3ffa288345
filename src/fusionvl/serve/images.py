"""An image as a request names it -> its encoded bytes, checked: a data URI, a URL or an uploaded file.

Looks at an image's head only (type and size); the worker decodes it. Never opens a path.
"""

import asyncio
import base64
import binascii
import io
import warnings

from PIL import Image

from fusionvl.serve.backend import Files
from fusionvl.serve.errors import ApiError
from fusionvl.serve.fetching import ImageFetcher
from fusionvl.serve.protocol import FilePart, ImagePart
from fusionvl.serve.settings import Limits

# PIL reads many more; some start other programs (EPS), and each is more code for hostile bytes to reach.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
# A phone's JPEG with a preview opens as JPEG and then calls itself MPO.
_MEDIA_TYPES = {**{name: f"image/{name.lower()}" for name in _FORMATS}, "MPO": "image/jpeg"}


class ImageReader:
    """Finds the bytes of images.

    Args:
        limits: Bytes and pixels.
        fetcher: For URLs.
        files: For uploaded ones.
    """

    def __init__(self, limits: Limits, fetcher: ImageFetcher, files: Files) -> None:
        self._limits = limits
        self._fetcher = fetcher
        self._files = files

    async def read(self, part: ImagePart | FilePart, owner: str, param: str) -> bytes:
        """The encoded image of a part.

        Args:
            part: Of a message.
            owner: Whose files may be named.
            param: Where the part is in the request.

        Raises:
            ApiError: When it cannot be had, or is not an image within the limits.
        """
        if isinstance(part, FilePart):
            file = await self._files.get(owner, part.file.file_id, f"{param}.file.file_id")
            return file.content  # checked when it came
        url = part.image_url.url
        try:
            if url[:5].lower() == "data:":
                content = await asyncio.to_thread(self._decode, url)
            else:
                content = await self._fetcher.fetch(url)
            await asyncio.to_thread(self.check, content)
        except ApiError as error:
            error.param = f"{param}.image_url.url"
            raise
        return content

    def check(self, content: bytes) -> str:
        """Look at an image's head; return its media type.

        Raises:
            ApiError: When it is no image of a known type, or too large.
        """
        if len(content) > self._limits.image_bytes:
            raise ApiError(
                "image_too_large", f"The image has {len(content)} bytes, the limit is {self._limits.image_bytes}"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                    (width, height), kind = image.size, image.format
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ApiError("image_too_large", f"The image has too many pixels: {error}") from error
        except Exception as error:  # hostile bytes make decoders raise nearly anything
            known = ", ".join(sorted(set(_MEDIA_TYPES.values())))
            raise ApiError("image_type_unsupported", f"The content is no image of a known type: {known}") from error
        if width * height > self._limits.image_pixels:
            raise ApiError(
                "image_too_large", f"The image has {width}x{height} pixels, the limit is {self._limits.image_pixels}"
            )
        return _MEDIA_TYPES[kind or ""]

    def _decode(self, uri: str) -> bytes:
        header, comma, payload = uri.partition(",")
        if not comma or not header.lower().endswith(";base64"):
            raise ApiError("image_unusable", "A data URI reads data:image/png;base64,CONTENT")
        if len(payload) > self._limits.image_bytes * 4 // 3 + 4:
            raise ApiError("image_too_large", f"The image has more than {self._limits.image_bytes} bytes")
        try:
            return base64.b64decode(payload, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ApiError("image_unusable", f"The base64 content of the data URI is broken: {error}") from error
