"""easy-VQA: the published facts of the data set, the held-out images, and the samples made from both."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fusionvl.data import Turn, easy_vqa
from fusionvl.data.easy_vqa import EasyVqaSource

ANSWERS = [
    "circle",
    "green",
    "red",
    "gray",
    "yes",
    "teal",
    "black",
    "rectangle",
    "yellow",
    "triangle",
    "brown",
    "blue",
    "no",
]


@pytest.fixture(scope="module")
def train():
    return easy_vqa.load_split("train")


@pytest.fixture(scope="module")
def test_images():
    return easy_vqa.load_split("test")


def count(images):
    return len(images), sum(len(image.turns) for image in images)


def test_published_size(train, test_images):
    assert count(train) == (4_000, 38_575)
    assert count(test_images) == (1_000, 9_673)


def test_published_answers(train, test_images):
    for images, yes_no in ((train, 28_407), (test_images, 7_136)):
        given = Counter(turn.answer for image in images for turn in image.turns)
        assert set(given) == set(ANSWERS)
        assert given["yes"] + given["no"] == yes_no


def test_images_are_grouped_in_order(train, test_images):
    for split, images in (("train", train), ("test", test_images)):
        assert [image.id for image in images] == list(range(len(images)))
        assert all(image.split == split and image.path.name == f"{image.id}.png" for image in images)
        assert all(2 <= len(image.turns) == len(set(image.turns)) for image in images)
    assert train[0].path.is_file()
    assert train[0].turns[:2] == (
        Turn("what is the blue shape?", "rectangle"),
        Turn("what color is the shape?", "blue"),
    )


def test_grouping_loses_and_adds_nothing(train):
    import easy_vqa as package

    flat = [(turn.question, turn.answer, image.id) for image in train for turn in image.turns]
    assert sorted(flat) == sorted(zip(*package.get_train_questions(), strict=True))


def test_splits_share_no_file(train, test_images):
    assert not {image.path for image in train} & {image.path for image in test_images}


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="splits 'train' and 'test', not 'heldout'"):
        easy_vqa.load_split("heldout")


def test_held_out_images(train):
    kept, held_out = easy_vqa.divide_train(train)
    assert sorted([*kept, *held_out], key=lambda image: image.id) == train
    # Pinned: a division that moves would put images a published model was trained on among its held-out ones.
    assert count(held_out) == (219, 2_133)
    assert [image.id for image in held_out[:5]] == [4, 16, 38, 52, 76]


def test_division_does_not_depend_on_the_selection(train):
    _, held_out = easy_vqa.divide_train(train)
    some = train[1000:2000][::-1]
    _, held_out_of_some = easy_vqa.divide_train(some)
    assert set(held_out_of_some) == set(held_out) & set(some)


def test_test_images_are_never_divided(test_images):
    with pytest.raises(ValueError, match="image 0 is of the test split"):
        easy_vqa.divide_train(test_images)


@pytest.fixture(scope="module")
def source():
    return EasyVqaSource(max_turns=6)


def draw(source, row, seed=0, epoch=0):
    return source.read(row, seed=seed, epoch=epoch)


def test_conversations_hold_original_questions_of_their_image(source, train):
    kept, held_out = easy_vqa.divide_train(train)
    assert source.images == kept
    assert EasyVqaSource(part="held-out").images == held_out
    lengths = set()
    for row in range(200):
        sample = draw(source, row)
        lengths.add(len(sample.turns))
        assert (sample.image, sample.source) == (kept[row].path, "easy-vqa-train")
        assert set(sample.turns) <= set(kept[row].turns)
        assert len(set(sample.turns)) == len(sample.turns)
    assert lengths == {1, 2, 3, 4, 5, 6}


def test_conversations_never_ask_for_more_than_there_is():
    source = EasyVqaSource(max_turns=99)
    few = min(range(len(source)), key=lambda row: len(source.images[row].turns))
    drawn = [draw(source, few, epoch=epoch).turns for epoch in range(50)]
    assert {len(turns) for turns in drawn} == {1, 2}
    assert {turn for turns in drawn for turn in turns} == set(source.images[few].turns)


def test_draws_depend_on_seed_epoch_and_row_alone(source):
    rows = range(50)
    base = [draw(source, row) for row in rows]
    assert [draw(source, row) for row in reversed(rows)] == base[::-1]
    assert [draw(source, row, epoch=1).turns for row in rows] != [sample.turns for sample in base]
    assert [draw(source, row, seed=1).turns for row in rows] != [sample.turns for sample in base]


def test_draws_are_pinned(source):
    """Another Python or process must draw the same, or a resumed run would see other samples."""
    assert [turn.question for turn in draw(source, 5).turns] == [
        "what is the red shape?",
        "is a blue shape present?",
        "is a yellow shape present?",
        "does the image not contain a gray shape?",
        "is there not a triangle in the image?",
    ]


def test_open_questions():
    source = EasyVqaSource(questions="open", max_turns=1)
    answers = {draw(source, row).turns[0].answer for row in range(len(source))}
    assert answers == set(ANSWERS) - {"yes", "no"}


def test_shapes_are_what_is_to_be_expected(source):
    shapes = source.shapes(np.arange(500))
    assert shapes.has_image.all()
    drawn = [draw(source, row, epoch=epoch).turns for row in range(500) for epoch in range(4)]
    assert shapes.turns.mean() == pytest.approx(np.mean([len(turns) for turns in drawn]), abs=0.6)
    characters = [sum(len(turn.question) + len(turn.answer) for turn in turns) for turns in drawn]
    assert shapes.characters.mean() == pytest.approx(np.mean(characters), rel=0.1)


@pytest.mark.parametrize("options", [{"questions": "closed"}, {"max_turns": 0}, {"max_turns": "4"}, {"part": "test"}])
def test_faulty_options(options):
    with pytest.raises(ValueError, match=r"easy-VQA: (questions|max_turns|part) must be"):
        EasyVqaSource(**options)


def test_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fusionvl\[easy-vqa\]'"):
        easy_vqa.load_split("test")


def test_data_room_loads_neither_torch_nor_the_data_set():
    code = "import sys, json, fusionvl.data.easy_vqa, fusionvl.data.llava; print(json.dumps(sorted(sys.modules)))"
    src = Path(easy_vqa.__file__).parents[2]
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(src)}
    )
    assert not {"torch", "transformers", "PIL", "easy_vqa"} & set(json.loads(out.stdout))
