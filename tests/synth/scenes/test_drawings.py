"""Drawn things: the pictures show what the graph says, the splits divide the pairs, and bad drawings are refused."""

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from made_drawings import ARTISTS, MARK, colour_of, width_of, write_drawings

from fusionvl.synth.kinds import KINDS
from fusionvl.synth.scene_sample import scene_sample
from fusionvl.synth.scenes.drawing import draw_picture
from fusionvl.synth.scenes.drawings import Drawings
from fusionvl.synth.scenes.drawn_things import (
    DrawnThing,
    characters,
    is_held_out_pair,
    kind_of,
    mistakable,
    of_kind,
    slender,
)

SIZE = 144
DRAWN = [name for name, kind in KINDS.items() if kind.needs_drawings]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_drawings(tmp_path_factory.mktemp("drawings"))


@pytest.fixture(scope="module")
def drawings(folder):
    return Drawings(folder)


def extent(mask):
    """The first and last column and row of what is seen, as shares of the picture's sides."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0] / len(mask), rows[0] / len(mask), (columns[-1] + 1) / len(mask), (rows[-1] + 1) / len(mask)


def lean(mask):
    """Degrees counter-clockwise by which the longer axis of what is seen is turned away from the horizontal."""
    y, x = np.nonzero(mask)
    (xx, xy), (_, yy) = np.cov(x, -y)
    return math.degrees(0.5 * math.atan2(2 * xy, xx - yy))


def near(pixels, colour):
    return np.abs(pixels - colour).max(axis=2) < 8


@pytest.mark.parametrize("kind", DRAWN)
def test_each_thing_is_seen_whole_where_and_as_large_as_the_graph_says_and_nothing_else_is(kind, drawings):
    size = 4 * SIZE if kind == "DrawnSmall" else SIZE  # soft edges must not be much of a thing
    turned = mirrored = 0
    for number, split in [(number, split) for split in ("train", "held-out") for number in range(12)]:
        sample = scene_sample(kind, number, split=split)
        (scene,) = sample.picture
        pixels = np.asarray(sample.draw(size, drawings), dtype=int)
        ground = np.asarray(draw_picture((replace(scene, things=()),), size), dtype=int)
        seen = np.abs(pixels - ground).max(axis=2) > 12
        for thing in scene.things:
            left, top, right, bottom = (round(edge * size) for edge in (
                thing.box.left, thing.box.top, thing.box.right, thing.box.bottom))  # fmt: skip
            assert min(left, top) >= 0, sample.id
            assert max(right, bottom) <= size, sample.id
            own = np.zeros_like(seen)
            around = slice(max(0, top - 1), bottom + 1), slice(max(0, left - 1), right + 1)
            own[around] = seen[around]
            seen &= ~own
            first, upper, last, lower = extent(own)
            assert ((first + last) / 2, (upper + lower) / 2) == pytest.approx((thing.x, thing.y), abs=1.5 / size)
            assert max(last - first, lower - upper) == pytest.approx(thing.diameter, abs=2.5 / size)
            artist = drawings.file_of(thing).split("/")[0]
            body, mark = (near(pixels, colour) & own for colour in (colour_of(thing.shape, artist), MARK))
            assert body.sum() / (body | mark).sum() == pytest.approx(0.75, abs=0.07), (sample.id, thing)
            on_the_right = np.nonzero(mark)[1].mean() > np.nonzero(body)[1].mean()
            assert on_the_right == thing.mirrored, (sample.id, thing)
            if width_of(thing.shape) > 1.5:
                assert lean(own) == pytest.approx(thing.angle, abs=3), (sample.id, thing)
                turned += thing.angle != 0
            mirrored += thing.mirrored
        assert not seen.any(), sample.id
    assert min(turned, mirrored) > 2


def test_artists_are_taken_equally_often_and_only_those_that_are_named(folder, drawings):
    things = [thing for number in range(400) for thing in scene_sample("DrawnScene", number).picture[0].things]
    taken = Counter(drawings.file_of(thing).split("/")[0] for thing in things)
    assert set(taken) == set(ARTISTS)
    assert 0.45 < taken["a"] / taken.total() < 0.55
    of_one = Drawings(folder, ["b"])
    assert {of_one.file_of(thing).split("/")[0] for thing in things} == {"b"}
    assert of_one.fingerprint != drawings.fingerprint


def test_every_drawing_of_a_thing_is_taken(folder, tmp_path):
    index = json.loads((folder / "index.json").read_text())
    index["a"]["things"]["dog"] = ["0.svg", "1.svg", "2.svg"]
    (tmp_path / "index.json").write_text(json.dumps(index))
    dog = DrawnThing("dog", "plain", (0, 0, 0), 0.5, 0.5, 0.5)
    taken = [Drawings(tmp_path).file_of(replace(dog, pick=pick / 100)) for pick in range(101)]
    assert list(dict.fromkeys(taken)) == ["a/0.svg", "a/1.svg", "a/2.svg", "b/2.svg"]
    assert {taken.count(file) for file in taken} == {25, 26}


def names_of(kind, number, split):
    return [thing.shape for thing in scene_sample(kind, number, split=split).picture[0].things]


def test_a_fifth_of_all_pairs_is_held_out():
    pairs = list(combinations(characters(), 2))
    held_out = [pair for pair in pairs if is_held_out_pair(*pair)]
    assert len(held_out) / len(pairs) == pytest.approx(0.2, abs=0.02)
    assert all(is_held_out_pair(other, one) for one, other in held_out)


@pytest.mark.parametrize("kind", DRAWN)
def test_no_training_scene_holds_a_held_out_pair_and_every_held_out_scene_of_several_things_does(kind):
    for split in ("train", "held-out"):
        for number in range(400):
            pairs = list(combinations(set(names_of(kind, number, split)), 2))
            held_out = [is_held_out_pair(*pair) for pair in pairs]
            assert any(held_out) if split == "held-out" and pairs else not any(held_out), (split, number)
            assert not any(other in mistakable(one) for one, other in pairs), (split, number)


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_all_names_are_seen_in_both_splits(split):
    assert {name for number in range(1000) for name in names_of("DrawnScene", number, split)} == set(characters())


def test_the_lists_of_things_are_of_things_there_are():
    assert sorted(characters()) == sorted(kind_of())
    shown = Counter(character for drawn in characters().values() for character in drawn)
    assert shown.most_common(1)[0][1] == 1, "a character shows two things"
    assert slender() < set(characters())
    assert all(name in mistakable(other) for name in characters() for other in mistakable(name))
    assert sum(map(len, map(of_kind, set(kind_of().values())))) == len(characters())


def spoiled(folder, tmp_path, spoil):
    """A copy of the drawings' index, changed."""
    index = json.loads((folder / "index.json").read_text())
    spoil(index)
    (tmp_path / "index.json").write_text(json.dumps(index))
    return tmp_path


def test_drawings_that_are_not_there_are_told(folder, tmp_path):
    with pytest.raises(
        ValueError, match=r"no .*index.json. Fetch them with python scripts/fetch_drawings.py --output"
    ):
        Drawings(tmp_path)
    with pytest.raises(ValueError, match="holds no drawings of picasso, only of a, b"):
        Drawings(folder, ["a", "picasso"])
    lacking = spoiled(folder, tmp_path, lambda index: index["a"]["things"].pop("banjo"))
    assert Drawings(lacking).artists == ARTISTS
    with pytest.raises(ValueError, match=r"no drawing by a of 1 of 312 things \(banjo\): take other artists, or more"):
        Drawings(lacking, ["a"])
    with pytest.raises(ValueError, match=r"The drawing .*/a/\d+.svg cannot be read: No such file"):
        _ = Drawings(lacking).fingerprint


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 1}', '{"a": {"things": {"dog": 1}}}', '{"a": {}}'])
def test_an_index_that_is_none_is_one_sentence(tmp_path, content):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(ValueError, match=r"index.json is no index of drawings: .*Fetch them again"):
        Drawings(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        (b"", "cannot be read"),
        (b"<svg", "cannot be read"),
        (bytes(range(256)), "cannot be read"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"/>', "shows nothing"),
    ],
    ids=["missing", "empty", "cut", "binary", "nothing"],
)
def test_a_broken_drawing_is_one_sentence(folder, tmp_path, content, reason):
    drawings = Drawings(spoiled(folder, tmp_path, lambda index: None))
    dog = DrawnThing("dog", "plain", (0, 0, 0), 0.5, 0.5, 0.5)
    path = tmp_path / drawings.file_of(dog)
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^The drawing {path} {reason}.*Fetch the drawings again$"):
        drawings.image_of(dog, 50)


def test_a_scene_of_drawn_things_cannot_be_drawn_without_drawings():
    with pytest.raises(ValueError, match=r"no drawings: fetch them with .*, and name their folder as images.drawings"):
        scene_sample("DrawnThing", 0).draw(SIZE)
