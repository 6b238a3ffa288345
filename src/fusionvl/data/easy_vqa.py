"""The easy-VQA data set: questions about one coloured shape on a small image, 13 possible answers.

Images and questions come with the Python package `easy-vqa`; this module groups its questions by image, holds some
train images out for measuring during development, and makes samples. It knows no training loop and no metric. The
official test questions are for the final score only: nothing here mixes them with the others.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, TypeAlias

from fusionvl.data.extras import import_extra
from fusionvl.data.sample import Sample, Turn

Split: TypeAlias = Literal["train", "test"]

_HELD_OUT_ONE_IN = 20


@dataclass(frozen=True, slots=True)
class EasyVqaImage:
    """One image with all its questions, in the data set's order.

    Attributes:
        id: the image's number within its split.
        split: the official split it belongs to.
        path: the image file.
        turns: its questions, each with its answer.
    """

    id: int
    split: Split
    path: Path
    turns: tuple[Turn, ...]


def load_split(split: Split) -> list[EasyVqaImage]:
    """Loads an official split, grouped by image and ordered by image id.

    Raises:
        ModuleNotFoundError: if the package `easy-vqa` is not installed.
        ValueError: if there is no such split.
    """
    if split not in ("train", "test"):
        raise ValueError(f"easy-VQA has the splits 'train' and 'test', not {split!r}")
    package = _package()
    if split == "train":
        questions, paths = package.get_train_questions(), package.get_train_image_paths()
    else:
        questions, paths = package.get_test_questions(), package.get_test_image_paths()
    turns: dict[int, list[Turn]] = {image_id: [] for image_id in sorted(paths)}
    for question, answer, image_id in zip(*questions, strict=True):
        turns[image_id].append(Turn(question=question, answer=answer))
    return [
        EasyVqaImage(id=image_id, split=split, path=Path(paths[image_id]), turns=tuple(own))
        for image_id, own in turns.items()
    ]


def answers() -> tuple[str, ...]:
    """Returns the possible answers, in the data set's order.

    Raises:
        ModuleNotFoundError: if the package `easy-vqa` is not installed.
    """
    return tuple(_package().get_answers())


def divide_train(images: Sequence[EasyVqaImage]) -> tuple[list[EasyVqaImage], list[EasyVqaImage]]:
    """Divides train images into those to train on and those held out, about one in twenty.

    Whole images are held out, each by a hash of its id alone: the division is the same on every machine and for any
    selection of images.

    Returns:
        (to train on, held out), both in the given order.

    Raises:
        ValueError: if an image of the test split is among them.
    """
    kept: list[EasyVqaImage] = []
    held_out: list[EasyVqaImage] = []
    for image in images:
        if image.split != "train":
            raise ValueError(f"image {image.id} is of the {image.split} split; only the train split is divided")
        digest = hashlib.sha256(f"easy-vqa/train/{image.id}".encode()).digest()
        (kept if int.from_bytes(digest[:8], "big") % _HELD_OUT_ONE_IN else held_out).append(image)
    return kept, held_out


def question_samples(images: Sequence[EasyVqaImage]) -> list[Sample]:
    """Makes one sample per question: how the data set is scored, and the plainest way to train on it."""
    return [
        _sample(image, (turn,), suffix=f"q{number}") for image in images for number, turn in enumerate(image.turns)
    ]


def conversation_sample(
    images: Sequence[EasyVqaImage], index: int, *, seed: int, epoch: int, max_turns: int
) -> Sample:
    """Makes a conversation of several questions about one image, drawn at random.

    The draw (how many questions, which, in what order) is a function of seed, epoch and index alone: no state to
    save or restore, and any worker may ask for any index.

    Args:
        images: what to draw from.
        index: which image.
        seed: the run's seed.
        epoch: the pass over the images; another pass draws other questions.
        max_turns: the most questions in a conversation; an image with fewer gives at most all it has.

    Raises:
        ValueError: if `max_turns` is less than 1.
    """
    if max_turns < 1:
        raise ValueError(f"max_turns must be at least 1, got {max_turns}")
    image = images[index]
    # Seeding from text is stable across Python versions and processes, unlike hash().
    generator = random.Random(f"easy-vqa/{seed}/{epoch}/{index}")
    count = generator.randint(1, min(max_turns, len(image.turns)))
    return _sample(image, tuple(generator.sample(image.turns, count)), suffix=f"e{epoch}")


def _sample(image: EasyVqaImage, turns: tuple[Turn, ...], *, suffix: str) -> Sample:
    return Sample(id=f"{image.id}-{suffix}", turns=turns, image=image.path, source=f"easy-vqa-{image.split}")


def _package() -> ModuleType:
    return import_extra("easy_vqa", extra="easy-vqa", needed_for="the easy-VQA data set")
