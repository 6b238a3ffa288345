"""The easy-VQA data set: questions about one coloured shape on a small image, 13 possible answers.

Images and questions come with the Python package `easy-vqa`; this module groups its questions by image, holds some
train images out for measuring during development, and offers the others as a source: one row per image, and in every
pass another conversation about it. The official test questions are for the final score only: nothing here mixes them
with the others. Knows no pixels and no metric.
"""

import functools
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusionvl.data.extras import import_extra
from fusionvl.data.sample import Sample, Turn
from fusionvl.data.source import Shapes
from fusionvl.run_folder import fingerprint

Split: TypeAlias = Literal["train", "test"]

_HELD_OUT_ONE_IN = 20
_YES_NO = ("yes", "no")


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
    package = import_extra("easy_vqa", extra="easy-vqa", needed_for="the easy-VQA data set")
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


class EasyVqaSource:
    """Conversations over easy-VQA's train images.

    A conversation (how many questions, which, in what order) is a function of seed, pass and row alone: no state to
    save or restore, and any worker may ask for any row.

    Args:
        part: `train` for the images to train on, `held-out` for those kept apart.
        questions: `all`, or only the `open` ones (shape and colour), whose answers are not yes or no.
        max_turns: most questions in a conversation; their number is drawn evenly from 1 up to this, or to as many as
            the image has.
        name: of the source.

    Raises:
        ModuleNotFoundError: if the package `easy-vqa` is not installed.
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        *,
        part: Literal["train", "held-out"] = "train",
        questions: Literal["all", "open"] = "all",
        max_turns: int = 4,
        name: str = "easy-vqa-train",
    ) -> None:
        if part not in ("train", "held-out"):
            raise ValueError(f"easy-VQA: part must be 'train' or 'held-out', not {part!r}")
        if questions not in ("all", "open"):
            raise ValueError(f"easy-VQA: questions must be 'all' or 'open', not {questions!r}")
        if not isinstance(max_turns, int) or max_turns < 1:
            raise ValueError(f"easy-VQA: max_turns must be a whole number of at least 1, got {max_turns!r}")
        images = divide_train(load_split("train"))[part == "held-out"]
        self.name = name
        self.images = _open_questions(images) if questions == "open" else images
        self.max_turns = max_turns

    @property
    def fingerprint(self) -> str:
        """Of all questions, and how many are drawn."""
        turns = [(image.id, turn.question, turn.answer) for image in self.images for turn in image.turns]
        return fingerprint(self.max_turns, turns)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, row: int, *, epoch: int, seed: int) -> Sample:
        """Draws the conversation about an image in a pass; another pass draws other questions."""
        image = self.images[row]
        # Seeding from text is stable across Python versions and processes, unlike hash().
        generator = random.Random(f"easy-vqa/{seed}/{epoch}/{row}")
        count = generator.randint(1, self._most_turns(image))
        turns = tuple(generator.sample(image.turns, count))
        return Sample(id=f"{image.id}-e{epoch}", turns=turns, image=image.path, source=self.name)

    def shapes(self, rows: NDArray[np.int64]) -> Shapes:
        """What is to be expected of a conversation; every row has an image."""
        characters, turns = self._expected[:, rows]
        return Shapes(characters, turns, np.ones(len(rows), np.bool_))

    @functools.cached_property
    def _expected(self) -> NDArray[np.int64]:
        """The mean characters and turns of each row's conversations."""
        turns = np.array([(1 + self._most_turns(image)) / 2 for image in self.images])
        characters = np.array([_mean_characters(image) for image in self.images])
        return np.rint([characters * turns, turns]).astype(np.int64)

    def _most_turns(self, image: EasyVqaImage) -> int:
        return min(self.max_turns, len(image.turns))


def _open_questions(images: list[EasyVqaImage]) -> list[EasyVqaImage]:
    kept = [
        replace(image, turns=tuple(turn for turn in image.turns if turn.answer not in _YES_NO)) for image in images
    ]
    return [image for image in kept if image.turns]


def _mean_characters(image: EasyVqaImage) -> float:
    """Of its questions, each with its answer."""
    return sum(len(turn.question) + len(turn.answer) for turn in image.turns) / len(image.turns)
