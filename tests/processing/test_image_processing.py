import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from fusionvl.processing import FusionImageProcessorPil
from fusionvl.processing.image_processing import five_views


def test_views_equal_the_released_ones(reference_dir):
    """All pixels through their checksum; of every eighth row and column, how far they are off."""
    with safe_open(reference_dir / "preprocess.safetensors", "np") as file:
        whole = json.loads(file.metadata()["full_set"])
        kept = {name: file.get_tensor(name) for name in whole}
    paths = sorted((reference_dir / "images").iterdir())
    assert [path.name for path in paths] == sorted(kept)
    for path in paths:
        views = five_views(Image.open(path).convert("RGB"), 384)
        assert (views.dtype, list(views.shape)) == (np.uint8, whole[path.name]["shape"])
        step = whole[path.name]["rows_and_columns"]
        assert kept[path.name].shape == (5, 3, 384 // step, 384 // step)
        assert np.abs(views[..., ::step, ::step].astype(int) - kept[path.name]).max() == 0
        assert hashlib.sha256(np.ascontiguousarray(views)).hexdigest() == whole[path.name]["sha256"]
        pixels = FusionImageProcessorPil()(path, return_tensors="pt")["pixel_values"]
        assert (pixels.dtype, pixels.shape) == (torch.float32, (1, 5, 3, 384, 384))
        assert torch.equal(pixels[0], torch.from_numpy(views).float() / 127.5 - 1)


def test_order_of_views():
    """Four quadrants of different grey: each tile is one of them, the base view holds all."""
    quadrants = np.kron(np.array([[0, 60], [120, 180]], dtype=np.uint8), np.ones((16, 16), dtype=np.uint8))
    views = five_views(Image.fromarray(quadrants).convert("RGB"), 16)
    assert [int(view[0, 8, 8]) for view in views[:4]] == [0, 60, 120, 180]
    assert [int(views[4, 0, y, x]) for y in (2, 13) for x in (2, 13)] == [0, 60, 120, 180]


def test_arrays_give_the_same_pixels_as_images(picture):
    processor = FusionImageProcessorPil(size=16)
    expected = processor(picture, return_tensors="pt")["pixel_values"]
    array = np.array(picture)
    for same in [array, torch.from_numpy(array), array.transpose(2, 0, 1), array[None]]:
        assert torch.equal(processor(same, return_tensors="pt")["pixel_values"], expected)
    assert processor([picture, array], return_tensors="pt")["pixel_values"].shape == (2, 5, 3, 16, 16)


def test_grey_and_rgba_arrays():
    processor = FusionImageProcessorPil(size=8)
    for shape in [(9, 7), (9, 7, 1), (9, 7, 4), (1, 9, 7)]:
        pixels = processor(np.zeros(shape, dtype=np.uint8))["pixel_values"]
        assert pixels.shape == (1, 5, 3, 8, 8)
        assert (pixels == (1 if shape == (9, 7, 4) else -1)).all()  # clear pixels lie on white


@pytest.mark.parametrize("array", [np.zeros((4, 4, 3)), np.zeros((5, 5, 2), np.uint8), np.zeros(5, np.uint8)])
def test_other_arrays_are_refused(array):
    with pytest.raises(ValueError, match="image arrays"):
        FusionImageProcessorPil()(array)


def test_mean_and_std_per_channel(picture):
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    pixels = FusionImageProcessorPil(size=8, image_mean=mean, image_std=std)(picture)["pixel_values"]
    views = five_views(picture, 8) / 255
    expected = (views - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert np.abs(pixels[0] - expected).max() < 1e-5


def test_bytes_on_request(picture):
    processor = FusionImageProcessorPil(size=8)
    pixels = processor([picture, picture], return_tensors="pt", do_normalize=False)["pixel_values"]
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (2, 5, 3, 8, 8))
    assert torch.equal(pixels.float() / 127.5 - 1, processor([picture, picture], return_tensors="pt")["pixel_values"])
    for other in ({"image_mean": 0.25}, {"image_std": (0.5, 0.5, 0.4)}):
        with pytest.raises(ValueError, match="takes mean and deviation of pixels for 0"):
            processor(picture, do_normalize=False, **other)
        assert not FusionImageProcessorPil(size=8, **other).model_normalizes


def test_save_and_load(tmp_path):
    FusionImageProcessorPil(size=28, image_mean=0.25).save_pretrained(tmp_path)
    loaded = FusionImageProcessorPil.from_pretrained(tmp_path)
    assert (loaded.side, loaded.image_mean, loaded.image_std) == (28, 0.25, 0.5)


def test_views_must_be_square():
    with pytest.raises(ValueError, match="square"):
        FusionImageProcessorPil(size={"height": 4, "width": 8})
