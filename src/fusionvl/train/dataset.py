"""Positions of the global order -> conversations, for a data loader.

Knows the data room and recipes; knows no tensors. A position alone decides the sample, so nothing needs saving.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from PIL import ImageOps
from torch.utils.data import Dataset, Sampler

from fusionvl.data.batches import grouped_batches
from fusionvl.data.easy_vqa import EasyVqaImage, conversation_sample, divide_train, load_split
from fusionvl.data.mixture import Mixture
from fusionvl.data.order import GlobalOrder
from fusionvl.data.replacement import FaultPolicy, SampleReader
from fusionvl.data.sample import Sample, to_messages
from fusionvl.processing import FusionProcessor, load_image
from fusionvl.train.config import EasyVqaData

_YES_NO = ("yes", "no")
_FRAME_BYTES = 2048  # more than any template writes around a first question: system prompt, headers, markup


class Conversations(Protocol):
    """What a stage trains on: conversations by position, and the positions of each batch."""

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The conversation at a position of the run: its id, `messages` and the `image`."""

    def batches(self, batch_size: int, accumulation: int, num_steps: int, first_step: int) -> Sampler[list[int]]:
        """Positions of each forward pass, from one optimizer step of the stage on."""


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

    def batches(self, batch_size: int, accumulation: int, num_steps: int, first_step: int) -> Sampler[list[int]]:
        """Consecutive positions."""
        return PositionBatches(batch_size, num_steps * accumulation, first_step * accumulation)


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


class MixtureConversations(Dataset[dict[str, Any]]):
    """Conversations of a mixture by position; a corrupt or over-long one is replaced as the policy says.

    Args:
        mixture: The data.
        processor: Measures conversations that may be too long.
        num_latents: Most latent tokens of a question.
        max_length: Most tokens of a row.
        policy: What to do with samples that cannot be used.
        quarantine: The file they are named in.
    """

    def __init__(
        self,
        mixture: Mixture,
        processor: FusionProcessor,
        num_latents: int,
        max_length: int,
        policy: FaultPolicy,
        quarantine: Path,
    ) -> None:
        self.mixture = mixture
        self.processor = processor
        self.num_latents = num_latents
        self.max_length = max_length
        self.reader = SampleReader(mixture, self._decode, policy=policy, quarantine=quarantine)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The conversation at a position of the run: its id, `messages` and the `image`."""
        return self.reader.read_or_replace(position)

    def batches(self, batch_size: int, accumulation: int, num_steps: int, first_step: int) -> Sampler[list[int]]:
        """Samples of one modality and similar length, within the mixture's order."""
        return GroupedPositions(self.mixture, batch_size, accumulation, num_steps, first_step)

    def _decode(self, sample: Sample) -> dict[str, Any]:
        image = None if sample.image is None else load_image(sample.image)
        messages = to_messages(sample)
        # No tokenizer here makes more tokens than a text has bytes, so most samples need not be measured.
        first_turn = sum(len(text.encode()) for text in (sample.turns[0].question, sample.turns[0].answer))
        image_tokens = 0 if image is None else self.processor.num_image_tokens + self.num_latents
        if first_turn + image_tokens + _FRAME_BYTES > self.max_length:
            self._measure(messages, image)
        return {"id": sample.id, "messages": messages, "image": image}

    def _measure(self, messages: list[dict[str, Any]], image: Any) -> None:
        """Encode the first turn; an `OverLongError` says that it does not fit."""
        first_turn = [dict(message, content=list(message["content"])) for message in messages[:2]]
        if image is not None:
            first_turn[0]["content"][0] = {"type": "image", "image": image}
        options = {"max_length": self.max_length, "num_latents": self.num_latents}
        self.processor.apply_chat_template(first_turn, tokenize=True, return_dict=True, processor_kwargs=options)


@dataclass(frozen=True)
class GroupedPositions(Sampler[list[int]]):
    """A stage's batches of like samples, from one optimizer step on.

    A step's samples are grouped together, then divided among its forward passes.

    Attributes:
        mixture: The data.
        batch_size: Rows of a forward pass.
        accumulation: Forward passes of an optimizer step.
        num_steps: Optimizer steps of the whole stage.
        first_step: Where to start; those before are done.
    """

    mixture: Mixture
    batch_size: int
    accumulation: int
    num_steps: int
    first_step: int = 0

    def __iter__(self) -> Iterator[list[int]]:
        size = self.batch_size * self.accumulation
        steps = grouped_batches(self.mixture, self.first_step * size, size)
        for _, positions in zip(range(self.first_step, self.num_steps), steps, strict=False):  # steps have no end
            yield from positions.reshape(self.accumulation, self.batch_size).tolist()

    def __len__(self) -> int:
        return self.num_steps * self.accumulation
