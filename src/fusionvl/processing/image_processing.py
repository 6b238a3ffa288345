"""One image -> five views: four tiles of the image at twice the view side, then the whole image (base view).

Knows pixels only: no text, no tokens, no model. PIL and NumPy do the work, torchvision is not needed.
Shapes: N images, H = W = view side.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import SizeDict

from fusionvl.processing.image_loading import ImageSource, load_image

VIEWS_PER_IMAGE = 5

ImageLike = ImageSource | np.ndarray | torch.Tensor


class FusionImageProcessorPil(PilBackend):
    """Cuts images into the five normalised views FUSION looks at.

    The image is resized (bicubic, aspect ratio not kept) to twice the view side and cut into top-left, top-right,
    bottom-left and bottom-right tiles; the base view is the whole image resized to the view side, and comes last.
    With `do_normalize=False` a call returns the views as they were cut, in bytes: a quarter of the memory, which the
    model normalises on its device.

    Args (keywords):
        size: side of a view in pixels, or `{"height": side, "width": side}`.
        image_mean, image_std: of pixels in 0..1, one number or one per channel.
    """

    model_input_names = ["pixel_values"]
    size = {"height": 384, "width": 384}
    image_mean = 0.5
    image_std = 0.5

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _square_side(self.size)

    @property
    def side(self) -> int:
        """Side of one view in pixels."""
        return _square_side(self.size)

    @property
    def model_normalizes(self) -> bool:
        """Whether the model makes of bytes what this processor would: with SigLIP's mean and deviation of 0.5."""
        return _is_half(self.image_mean, self.image_std)

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Load whatever stands for an image, keeping the nesting of lists.

        Raises:
            ValueError: an image cannot be used; the message says which and why.
        """
        if isinstance(image_url_or_urls, (list, tuple)):
            return [self.fetch_images(image) for image in image_url_or_urls]
        if isinstance(image_url_or_urls, (np.ndarray, torch.Tensor)):
            return _image_from_array(image_url_or_urls)
        return load_image(image_url_or_urls)

    def process_image(self, image: Image.Image, **kwargs: Any) -> Image.Image:
        """`fetch_images` has already made an RGB image of it."""
        return image

    def _preprocess(
        self,
        images: list[Image.Image],
        size: SizeDict,
        image_mean: float | tuple[float, ...],
        image_std: float | tuple[float, ...],
        return_tensors: str | None = None,
        do_normalize: bool | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Views of every image: `pixel_values` (N, 5, 3, H, W), float32, or uint8 with `do_normalize=False`.

        Raises:
            ValueError: views are not square, or bytes are asked for that the model would normalise otherwise.
        """
        side = _square_side(size)
        if do_normalize is False:
            if not _is_half(image_mean, image_std):
                raise ValueError(
                    f"do_normalize=False leaves it to the model, which takes mean and deviation of pixels for 0.5; "
                    f"this processor has image_mean={image_mean} and image_std={image_std}: let it normalise"
                )
            views = np.stack([five_views(image, side) for image in images])
            return BatchFeature({"pixel_values": views}, tensor_type=return_tensors)
        mean = np.asarray(image_mean, dtype=np.float32).reshape(-1, 1, 1)
        std = np.asarray(image_std, dtype=np.float32).reshape(-1, 1, 1)
        pixels = np.empty((len(images), VIEWS_PER_IMAGE, 3, side, side), dtype=np.float32)
        for index, image in enumerate(images):
            # Written as v / (255 std) - mean / std: for 0.5 and 0.5 this is v / 127.5 - 1 to the last bit.
            pixels[index] = five_views(image, side) / (np.float32(255) * std) - mean / std
        return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)


def five_views(image: Image.Image, side: int) -> np.ndarray:
    """Cut an RGB image into its views.

    Args:
        image: RGB.
        side: side of one view in pixels.

    Returns:
        uint8 (5, 3, side, side): top-left, top-right, bottom-left, bottom-right tile, base view.
    """
    doubled = np.asarray(image.resize((2 * side, 2 * side), Image.Resampling.BICUBIC))
    base_view = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))
    views = [
        doubled[:side, :side],
        doubled[:side, side:],
        doubled[side:, :side],
        doubled[side:, side:],
        base_view,
    ]
    return np.stack(views).transpose(0, 3, 1, 2)


def _is_half(*numbers: float | tuple[float, ...]) -> bool:
    return all(bool(np.all(np.asarray(number) == 0.5)) for number in numbers)


def _square_side(size: SizeDict) -> int:
    if not size.height or size.height != size.width:
        raise ValueError(f"views are square: size must be one number or equal height and width, got {dict(size)}")
    return size.height


def _image_from_array(array: np.ndarray | torch.Tensor) -> Image.Image | list[Image.Image]:
    """uint8 (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels; a fourth axis in front is a list of images."""
    pixels = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array
    if pixels.dtype != np.uint8:
        raise ValueError(f"image arrays must be uint8 with values 0 to 255, got {pixels.dtype} {pixels.shape}")
    if pixels.ndim == 4:
        return [_image_from_array(image) for image in pixels]  # type: ignore[misc]
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (3, 4)):
        raise ValueError(f"image arrays are (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, got {array.shape}")
    return load_image(Image.fromarray(np.ascontiguousarray(pixels)))
