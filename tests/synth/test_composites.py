"""Composites: answers that the pictures bear out, no picture on both sides, a folder that belongs to its settings."""

import json

import numpy as np
import pytest
from PIL import Image

from fusionvl import cli
from fusionvl.data.easy_vqa import load_split
from fusionvl.data.mixture import open_mixture
from fusionvl.synth.composites import (
    KINDS,
    PLACES,
    CompositeSettings,
    compose,
    composite_sample,
    known_parts,
    write_composites,
)

# Of the middle of a shape; teal and the like are told by the nearest.
RGB = {
    "black": (0, 0, 0), "blue": (0, 0, 255), "brown": (165, 42, 42), "gray": (128, 128, 128), "green": (0, 128, 0),
    "red": (255, 0, 0), "teal": (0, 128, 128), "yellow": (255, 255, 0),
}  # fmt: skip


@pytest.fixture(scope="module")
def parts():
    return known_parts("held-out")


def settings(**changes):
    return CompositeSettings(
        **{"count": 3, "parts": 4, "turns": 1, "size": 96, "seed": 0, "split": "held-out", **changes}
    )


def colour_in(cell):
    """The colour of what differs most from the ground."""
    pixels = np.asarray(cell).reshape(-1, 3).astype(int)
    far = pixels[np.abs(pixels - pixels[0]).sum(1).argsort()[-20:]].mean(0)
    return min(RGB, key=lambda name: np.abs(far - RGB[name]).sum())


def cells(picture):
    half = picture.width // 2
    return [picture.crop((x, y, x + half, y + half)) for y in (0, half) for x in (0, half)]


def test_every_cell_has_the_colour_that_is_answered(parts):
    for number in range(20):
        chosen, turns = composite_sample("CompositeColor", number, settings(), parts)
        seen = dict(zip(PLACES, map(colour_in, cells(compose(chosen, 96))), strict=True))
        for turn in turns:
            place = next(place for place in PLACES if turn.question.endswith(f"{place}?"))
            assert turn.answer == seen[place]


def test_a_cell_is_the_picture_itself(parts):
    chosen, _ = composite_sample("CompositeShape", 0, settings(), parts)
    for part, cell in zip(chosen, cells(compose(chosen, 128)), strict=True):
        with Image.open(part.path) as picture:
            np.testing.assert_array_equal(np.asarray(cell), np.asarray(picture.convert("RGB")))


def test_one_part_is_where_it_is_said_to_be(parts):
    answers = set()
    for number in range(30):
        chosen, (turn,) = composite_sample("SmallWhere", number, settings(parts=1), parts)
        spread = [np.ptp(np.asarray(cell).astype(int), axis=(0, 1)).max() for cell in cells(compose(chosen, 96))]
        assert PLACES[int(np.argmax(spread))] == turn.answer
        assert sorted(spread)[:3] == [0, 0, 0], "the other places are empty"
        answers.add(turn.answer)
    assert answers == set(PLACES)


def test_counts_and_places_follow_from_the_parts(parts):
    for number in range(30):
        chosen, (turn,) = composite_sample("CompositeCount", number, settings(), parts)
        wanted = turn.question.split()[2]
        assert int(turn.answer) == sum(wanted in (part.colour, f"{part.shape}s") for part in chosen)
        chosen, (turn,) = composite_sample("CompositeWhere", number, settings(), parts)
        _, _, _, colour, shape = turn.question.rstrip("?").split()
        assert [p for p, part in zip(PLACES, chosen, strict=True) if (part.colour, part.shape) == (colour, shape)] == [
            turn.answer
        ]


def test_further_questions_are_about_the_same_picture_and_all_different(parts):
    for count, kinds in KINDS.items():
        for kind in kinds:
            for number in range(10):
                _, turns = composite_sample(kind, number, settings(parts=count, turns=3), parts)
                assert len({turn.question for turn in turns}) == 3


def test_no_picture_is_on_both_sides_or_of_the_test_split(parts):
    train, held_out = {part.path for part in known_parts("train")}, {part.path for part in parts}
    test = {image.path for image in load_split("test")}
    assert len(train) > 1000
    assert len(held_out) > 50
    assert not train & held_out
    assert not (train | held_out) & test


def test_a_folder(tmp_path):
    mixture = write_composites(tmp_path / "c", settings(parts=1, turns=2))
    opened = open_mixture(mixture, seed=0)
    samples = [opened.read(opened.order.at(position)) for position in range(len(opened))]
    assert {sample.source for sample in samples} == set(KINDS[1])
    assert all(len(sample.turns) == 2 for sample in samples)
    kept = [*(tmp_path / "c").glob("*.*l*"), *(tmp_path / "c").rglob("*.png")]
    before = {path: path.read_bytes() for path in kept if path.is_file()}
    (tmp_path / "c" / "SmallShape.json").unlink()
    write_composites(tmp_path / "c", settings(parts=1, turns=2))
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(ValueError, match="composites of"):
        write_composites(tmp_path / "c", settings(parts=1, turns=1))


def test_the_command(tmp_path, capsys):
    output = tmp_path / "c"
    assert cli.main(["synth", "composites", str(output), "--count", "2", "--split", "held-out"]) == 0
    assert str(output / "mixture.yaml") in capsys.readouterr().out
    assert len(json.loads((output / "CompositeShape.json").read_text())) == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    for arguments, reason in [
        ([str(tmp_path / "new"), "--parts", "2"], "1 or 4 pictures, not 2"),
        ([str(tmp_path / "new"), "--turns", "5"], "turns 1 to 4"),
        ([str(tmp_path / "new"), "--size", "33"], "even number"),
        ([str(tmp_path / "other")], "holds other files"),
    ]:
        assert cli.main(["synth", "composites", *arguments]) == 2
        assert reason in capsys.readouterr().err
