"""Image checks on real files; near-duplicates of texts and images."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fusionvl.synth.filtering import filter_run
from fusionvl.synth.filters.duplicates import IMAGE_DISTANCE, image_groups
from fusionvl.synth.filters.images import score_image
from fusionvl.synth.rows import row_id
from fusionvl.synth.scores import ok_rows, read_scores


def test_image_checks_tell_good_images_from_bad_ones(runs):
    rows = runs.rows(6)
    good, flat, blurred, cut, gone, none = rows
    files = [runs.folder / row.image for row in rows]
    Image.new("RGB", (128, 96)).save(files[1])
    with Image.open(files[2]) as image:
        image.filter(ImageFilter.GaussianBlur(3)).save(files[2])
    files[3].write_bytes(files[3].read_bytes()[:900])
    files[4].unlink()
    rows = [good, flat, blurred, cut, gone, replace(none, image=None)]
    scores = [score_image(row, runs.folder) for row in rows]
    assert [each["image_decodes"] for each in scores] == [1, 1, 1, 0, 0, 0]
    assert [each["image_side"] for each in scores] == [128, 96, 128, None, None, None]
    assert scores[0]["image_contrast"] > 10
    assert scores[1]["image_contrast"] == 0
    assert scores[0]["image_sharpness"] > 3
    assert scores[2]["image_sharpness"] < 0.5


def test_contrast_of_colours_with_equal_brightness(runs):
    (row,) = runs.rows(1)
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32], pixels[:, 32:] = (140, 0, 0), (0, 71, 0)
    Image.fromarray(pixels).save(runs.folder / row.image, quality=95)
    assert score_image(row, runs.folder)["image_contrast"] > 40


def test_near_texts_and_near_images_share_a_group(runs):
    """The copies stand in the other shard; so does a row whose image is broken."""
    rows = runs.rows(12)
    words = rows[0].description.split()
    text = replace(rows[0], id=row_id("copy", "", "", ""), description=" ".join([*words[:-1], "pentagon"]))
    with Image.open(runs.folder / rows[3].image) as image:
        image.resize((112, 112)).save(runs.folder / "images" / "again.jpg", quality=60)
    picture = replace(rows[3], id=row_id("image", "", "", ""), description="Nothing alike", image="images/again.jpg")
    (runs.folder / rows[9].image).write_bytes(b"no image")
    folder = runs.write([*rows, text, picture])
    filter_run(folder, ["duplicates"])
    table = read_scores(folder, "duplicates", ok_rows(folder))
    own = list(range(14))
    assert table["text_group"].to_pylist() == [*own[:12], 0, 13], "different rows are groups of their own"
    assert table["image_group"].to_pylist() == [*own[:9], None, 10, 11, 0, 3]


def test_image_groups_are_those_that_comparing_all_pairs_finds():
    draws = np.random.default_rng(0)
    hashes = draws.integers(0, 2**63, 40, dtype=np.uint64)[np.arange(400) % 40]
    for place in range(400):
        for bit in draws.choice(64, draws.integers(0, IMAGE_DISTANCE // 2 + 1), replace=False).tolist():
            hashes[place] ^= np.uint64(1 << bit)
    near = np.bitwise_count(hashes[:, None] ^ hashes[None, :]) <= IMAGE_DISTANCE
    assert image_groups(hashes).tolist() == near.argmax(axis=1).tolist()


def test_no_image_no_group():
    assert image_groups(np.empty(0, dtype=np.uint64)).tolist() == []


@pytest.mark.parametrize("distance", [0, IMAGE_DISTANCE, IMAGE_DISTANCE + 1])
def test_a_hash_is_near_up_to_the_distance(distance):
    hashes = np.array([0, sum(1 << 13 * bit for bit in range(distance))], dtype=np.uint64)
    assert (len(set(image_groups(hashes).tolist())) == 1) == (distance <= IMAGE_DISTANCE)
