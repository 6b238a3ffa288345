"""easy-VQA: the published facts of the data set, the held-out images, and the samples made from both."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from fusionvl.data import Turn, easy_vqa

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
    assert easy_vqa.answers() == tuple(ANSWERS)
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


def test_question_samples(test_images):
    samples = easy_vqa.question_samples(test_images)
    assert len(samples) == 9_673
    assert len({sample.id for sample in samples}) == 9_673
    assert all(len(sample.turns) == 1 and sample.source == "easy-vqa-test" for sample in samples)
    first = samples[0]
    assert (first.id, first.image, first.turns) == ("0-q0", test_images[0].path, test_images[0].turns[:1])


def draw(images, index, seed=0, epoch=0, max_turns=6):
    return easy_vqa.conversation_sample(images, index, seed=seed, epoch=epoch, max_turns=max_turns)


def test_conversations_hold_original_questions_of_their_image(train):
    lengths = set()
    for index in range(200):
        sample = draw(train, index)
        lengths.add(len(sample.turns))
        assert sample.image == train[index].path
        assert set(sample.turns) <= set(train[index].turns)
        assert len(set(sample.turns)) == len(sample.turns)
    assert lengths == {1, 2, 3, 4, 5, 6}


def test_conversations_never_ask_for_more_than_there_is(train):
    few = min(train, key=lambda image: len(image.turns))
    assert {len(draw([few], 0, epoch=epoch, max_turns=99).turns) for epoch in range(50)} == {1, 2}


def test_conversations_of_one_turn(train):
    assert {len(draw(train, index, max_turns=1).turns) for index in range(50)} == {1}


def test_draws_depend_on_seed_epoch_and_index_alone(train):
    indices = range(50)
    base = [draw(train, index) for index in indices]
    assert [draw(train, index) for index in reversed(indices)] == base[::-1]
    assert [draw(train, index, epoch=1).turns for index in indices] != [sample.turns for sample in base]
    assert [draw(train, index, seed=1).turns for index in indices] != [sample.turns for sample in base]


def test_draws_are_pinned(train):
    """Another Python or process must draw the same, or a resumed run would see other samples."""
    assert [turn.question for turn in draw(train, 5).turns] == [
        "what is the yellow shape?",
        "does the image contain a yellow shape?",
        "is there a triangle?",
        "is a rectangle present?",
        "is there not a circle?",
    ]


def test_every_question_comes_up(train):
    image = train[0]
    seen = {turn for epoch in range(60) for turn in draw(train, 0, epoch=epoch).turns}
    assert seen == set(image.turns)


def test_max_turns_must_be_positive(train):
    with pytest.raises(ValueError, match="max_turns must be at least 1, got 0"):
        draw(train, 0, max_turns=0)


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
    assert not {"torch", "transformers", "numpy", "PIL", "easy_vqa"} & set(json.loads(out.stdout))
