"""Positions of the global order -> conversations, for a data loader.

Knows the data room and recipes; knows no tensors. A position alone decides the sample, so nothing needs saving.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from PIL import ImageOps
from torch.utils.data import Dataset, Sampler

from fusionvl.data.easy_vqa import EasyVqaImage, conversation_sample, divide_train, load_split
from fusionvl.data.order import GlobalOrder
from fusionvl.data.sample import to_messages
from fusionvl.processing import load_image
from fusionvl.train.config import EasyVqaData

_YES_NO = ("yes", "no")


class EasyVqaConversations(Dataset[dict[str, Any]]):
    """Conversations over easy-VQA's train images, without those held out, by position."""

    def __init__(self, data: EasyVqaData, seed: int) -> None:
        images, _ = divide_train(load_split("train"))
        self.images = _open_questions(images) if data.questions == "open" else images
        self.data = data
        self.seed = seed
        self.order = GlobalOrder(len(self.images), seed)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The conversation at a position of the run: its id, `messages` and the `image`."""
        epoch, index = self.order.at(position)
        sample = conversation_sample(self.images, index, seed=self.seed, epoch=epoch, max_turns=self.data.max_turns)
        image = load_image(self.images[index].path)
        if self.data.mirror and random.Random(f"mirror/{self.seed}/{position}").random() < 0.5:
            image = ImageOps.mirror(image)
        return {"id": sample.id, "messages": to_messages(sample), "image": image}


def _open_questions(images: list[EasyVqaImage]) -> list[EasyVqaImage]:
    kept = [
        replace(image, turns=tuple(turn for turn in image.turns if turn.answer not in _YES_NO)) for image in images
    ]
    return [image for image in kept if image.turns]


@dataclass(frozen=True)
class PositionBatches(Sampler[list[int]]):
    """A stage's batches of consecutive positions, from one of them on.

    Its length counts the whole stage, so that a resumed run's share of the stage is counted from the stage's start.

    Attributes:
        batch_size: Rows of a batch.
        num_batches: Batches of the whole stage.
        first_batch: Where to start; those before are done.
    """

    batch_size: int
    num_batches: int
    first_batch: int = 0

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(self.first_batch, self.num_batches):
            yield list(range(batch * self.batch_size, (batch + 1) * self.batch_size))

    def __len__(self) -> int:
        return self.num_batches
