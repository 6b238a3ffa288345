"""easy-VQA as a source: one row per image, and in every pass another conversation about it.

Train images only: those to train on, or those held out. The data set itself is in `easy_vqa.py`. Knows no pixels.
"""

from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusionvl.data.easy_vqa import EasyVqaImage, conversation_sample, divide_train, load_split
from fusionvl.data.sample import Sample

Questions: TypeAlias = Literal["all", "open"]
Part: TypeAlias = Literal["train", "held-out"]

_YES_NO = ("yes", "no")


class EasyVqaSource:
    """Conversations over easy-VQA's train images.

    Args:
        part: `train` for the images to train on, `held-out` for those kept apart.
        questions: `all`, or only the `open` ones (shape and colour), whose answers are not yes or no.
        max_turns: most questions in a conversation; their number is drawn evenly from 1 up to this.
        name: of the source.

    Raises:
        ModuleNotFoundError: if the package `easy-vqa` is not installed.
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        *,
        part: Part = "train",
        questions: Questions = "all",
        max_turns: int = 4,
        name: str = "easy-vqa-train",
    ) -> None:
        if part not in ("train", "held-out"):
            raise ValueError(f"easy-VQA: part must be 'train' or 'held-out', not {part!r}")
        if questions not in ("all", "open"):
            raise ValueError(f"easy-VQA: questions must be 'all' or 'open', not {questions!r}")
        if not isinstance(max_turns, int) or max_turns < 1:
            raise ValueError(f"easy-VQA: max_turns must be a whole number of at least 1, got {max_turns!r}")
        kept, held_out = divide_train(load_split("train"))
        images = held_out if part == "held-out" else kept
        self.name = name
        self.images = _open_questions(images) if questions == "open" else images
        self.max_turns = max_turns
        self._lengths = np.array([_expected_length(image, max_turns) for image in self.images], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, row: int, *, epoch: int, seed: int) -> Sample:
        """Draws the conversation about an image in a pass; see `conversation_sample`."""
        sample = conversation_sample(self.images, row, seed=seed, epoch=epoch, max_turns=self.max_turns)
        return replace(sample, source=self.name)

    def lengths(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The expected characters of a conversation."""
        return np.asarray(self._lengths[rows])

    def has_image(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Every row has an image."""
        return np.ones(len(rows), dtype=bool)


def _open_questions(images: list[EasyVqaImage]) -> list[EasyVqaImage]:
    kept = [
        replace(image, turns=tuple(turn for turn in image.turns if turn.answer not in _YES_NO)) for image in images
    ]
    return [image for image in kept if image.turns]


def _expected_length(image: EasyVqaImage, max_turns: int) -> int:
    characters = sum(len(turn.question) + len(turn.answer) for turn in image.turns) / len(image.turns)
    return round(characters * (1 + min(max_turns, len(image.turns))) / 2)
