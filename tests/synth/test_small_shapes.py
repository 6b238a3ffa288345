"""Answers that the pictures bear out, and no picture on both sides."""

import hashlib
import json

import numpy as np
import pytest

from fusionvl import cli
from fusionvl.data.easy_vqa import load_split
from fusionvl.data.mixture import open_mixture
from fusionvl.synth import small_shapes
from fusionvl.synth.small_shapes import (
    KINDS,
    PLACES,
    SmallShapeSettings,
    draw_small_shape,
    known_shapes,
    small_shape_sample,
    write_small_shapes,
)

# Of the middle of a shape; teal and the like are told by the nearest.
RGB = {
    "black": (0, 0, 0), "blue": (0, 0, 255), "brown": (165, 42, 42), "gray": (128, 128, 128), "green": (0, 128, 0),
    "red": (255, 0, 0), "teal": (0, 128, 128), "yellow": (255, 255, 0),
}  # fmt: skip


@pytest.fixture(scope="module")
def shapes():
    return known_shapes("held-out")


def settings(**changes):
    return SmallShapeSettings(**{"count": 3, "split": "held-out", **changes})


def cells(picture):
    half = picture.width // 2
    return [np.asarray(picture.crop((x, y, x + half, y + half))).astype(int) for y in (0, half) for x in (0, half)]


def test_answers_are_what_is_to_be_seen(shapes):
    places = set()
    for number in range(30):
        shape, place, turns = small_shape_sample("SmallWhere", number, settings(turns=3), shapes)
        found = cells(draw_small_shape(shape, place, 96))
        spread = [np.ptp(cell, axis=(0, 1)).max() for cell in found]
        assert sorted(spread)[:3] == [0, 0, 0], "the other places are empty"
        pixels = found[int(np.argmax(spread))].reshape(-1, 3)
        far = pixels[np.abs(pixels - pixels[0]).sum(1).argsort()[-20:]].mean(0)
        answers = {turn.question: turn.answer for turn in turns}
        assert answers["where is the shape?"] == PLACES[int(np.argmax(spread))]
        assert answers["what color is the shape?"] == min(RGB, key=lambda name: np.abs(far - RGB[name]).sum())
        assert len(answers) == 3
        places.add(place)
    assert places == set(PLACES)


def test_no_picture_is_on_both_sides_or_of_the_test_split(shapes):
    train, held_out = {shape.path for shape in known_shapes("train")}, {shape.path for shape in shapes}
    assert len(train) > 1000
    assert len(held_out) > 50
    assert not train & held_out
    assert not (train | held_out) & {image.path for image in load_split("test")}


def test_a_folder(tmp_path, capsys):
    output = tmp_path / "s"
    command = ["synth", "small-shapes", str(output), "--count", "2", "--split", "held-out", "--turns", "2"]
    assert cli.main(command) == 0
    assert str(output / "mixture.yaml") in capsys.readouterr().out
    opened = open_mixture(output / "mixture.yaml", seed=0)
    samples = [opened.read(opened.order.at(position)) for position in range(len(opened))]
    assert sorted(sample.source for sample in samples) == sorted([*KINDS, *KINDS])
    assert all(len(sample.turns) == 2 for sample in samples)
    assert cli.main(command) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_folder_that_was_stopped_goes_on_with_its_pictures(tmp_path, monkeypatch):
    """Under other settings it begins again."""
    drawn = []

    def draw(shape, place, size):
        if len(drawn) == 4:
            raise KeyboardInterrupt
        drawn.append(shape)
        return draw_small_shape(shape, place, size)

    with monkeypatch.context() as patch:
        patch.setattr(small_shapes, "draw_small_shape", draw)
        for wanted in (settings(seed=1), settings()):
            drawn.clear()
            with pytest.raises(KeyboardInterrupt):
                write_small_shapes(tmp_path / "s", wanted)
        assert [path.name for path in tmp_path.iterdir()] == ["s.unfinished"]
        drawn[:] = range(-5, 0)
        write_small_shapes(tmp_path / "s", settings())
    assert len(drawn) == 5 + 9 - 4, "four are there already"
    write_small_shapes(tmp_path / "whole", settings())
    files = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in (tmp_path / "s", tmp_path / "whole")
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 9 + 3 + 2


def test_samples_are_those_of_published_results(tmp_path):
    write_small_shapes(tmp_path / "s", settings(turns=3))
    told = json.dumps([json.loads((tmp_path / "s" / f"{kind}.json").read_text()) for kind in KINDS])
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "a96ff439c7127b21"


@pytest.mark.parametrize(("wrong", "told"), [({"turns": 4}, "turns 1 to 3"), ({"size": 33}, "even number")])
def test_settings_that_cannot_be(wrong, told):
    with pytest.raises(ValueError, match=told):
        settings(**wrong)
