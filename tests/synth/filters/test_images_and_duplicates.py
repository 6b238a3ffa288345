"""Image checks on real files; near-duplicates of texts and images."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fusionvl.synth.filters.duplicates import Duplicates, NearHashes
from fusionvl.synth.filters.image_checks import score_images
from fusionvl.synth.rows import row_id


def test_image_checks_tell_good_images_from_bad_ones(runs):
    rows = runs.rows(6)
    good, flat, blurred, cut, gone, none = rows
    files = [runs.folder / row.image for row in rows]
    Image.new("RGB", (128, 96)).save(files[1])
    with Image.open(files[2]) as image:
        image.filter(ImageFilter.GaussianBlur(3)).save(files[2])
    files[3].write_bytes(files[3].read_bytes()[:900])
    files[4].unlink()
    scores = score_images([good, flat, blurred, cut, gone, replace(none, image=None)], runs.folder)
    assert scores["image_decodes"] == [1, 1, 1, 0, 0, 0]
    assert scores["image_side"] == [128, 96, 128, None, None, None]
    assert scores["image_contrast"][0] > 10
    assert scores["image_contrast"][1] == 0
    assert scores["image_sharpness"][0] > 3
    assert scores["image_sharpness"][2] < 0.5


def test_contrast_of_colours_with_equal_brightness(runs):
    (row,) = runs.rows(1)
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32], pixels[:, 32:] = (140, 0, 0), (0, 71, 0)
    Image.fromarray(pixels).save(runs.folder / row.image, quality=95)
    assert score_images([row], runs.folder)["image_contrast"][0] > 40


def test_near_texts_and_near_images_share_a_group(runs):
    rows = runs.rows(12)
    words = rows[0].description.split()
    near = replace(rows[0], id=row_id("copy", "", "", ""), description=" ".join([*words[:-1], "pentagon"]))
    with Image.open(runs.folder / rows[3].image) as image:
        image.resize((112, 112)).save(runs.folder / "images" / "again.jpg", quality=60)
    again = replace(rows[3], id=row_id("image", "", "", ""), description="Nothing alike", image="images/again.jpg")
    finder = Duplicates(text_similarity=0.7)
    first = finder.score(rows[:7], runs.folder)
    rest = finder.score([*rows[7:], near, again], runs.folder)
    texts, images = (first[name] + rest[name] for name in ("text_group", "image_group"))
    ids = [row.id for row in rows]
    assert texts[:12] == images[:12] == ids, "different rows are groups of their own"
    assert texts[12:] == [ids[0], again.id]
    assert images[12:] == [ids[0], ids[3]]


def test_a_broken_image_has_no_group(runs):
    (row,) = runs.rows(1)
    (runs.folder / row.image).write_bytes(b"no image")
    assert Duplicates().score([row], runs.folder)["image_group"] == [None]


@pytest.mark.parametrize("distance", [0, 4, 9])
def test_near_hashes_finds_exactly_what_comparing_all_pairs_finds(distance):
    draws = np.random.default_rng(0)
    centres = [int(bits) for bits in draws.integers(0, 2**63, 40)]
    hashes, seen = NearHashes(distance), []
    for number in range(400):
        bits = centres[number % 40]
        for bit in draws.choice(64, draws.integers(0, 12), replace=False).tolist():
            bits ^= 1 << bit
        expected = min(((bits ^ other).bit_count(), name) for other, name in [*seen, (~bits % 2**64, "far")])
        group = hashes.group(bits, f"{number:03}")
        if expected[0] <= distance:
            assert group == expected[1]
        else:
            assert group == f"{number:03}"
            seen.append((bits, group))
    assert len(seen) < 400


def test_limits_out_of_range():
    with pytest.raises(ValueError, match=r"got 1\.5 and 4"):
        Duplicates(text_similarity=1.5)
