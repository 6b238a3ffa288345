"""Positions of the global order -> conversations and batches, for a data loader.

Knows the data room and recipes; knows no tensors. A position alone decides the sample, so nothing needs saving.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ImageOps
from torch.utils.data import Dataset, Sampler

from fusionvl.data.batches import grouped_batches, rank_share
from fusionvl.data.mixture import Mixture, open_mixture
from fusionvl.data.replacement import SampleReader
from fusionvl.data.sample import Sample, to_messages
from fusionvl.processing import FusionProcessor, load_image
from fusionvl.train.config import MixtureData, StageConfig

_FRAME_BYTES = 2048  # more than any template writes around a first question: system prompt, headers, markup
_TEXT_SAMPLES = 20_000  # of each mixture, more than a small vocabulary needs


def open_data(data: MixtureData, seed: int) -> Mixture:
    """Open the mixture that a recipe names.

    Raises:
        ValueError: When it cannot work; see `open_mixture`.
    """
    images = None if data.image_folder is None else Path(data.image_folder)
    description = {"datasets": data.datasets} if data.path is None else Path(data.path)
    return open_mixture(description, seed=seed, image_folder=images)


def texts_of(data: list[MixtureData], seed: int) -> Iterator[str]:
    """Questions and answers of the first samples of each mixture: what a tokenizer is trained on."""
    for each in data:
        mixture = open_data(each, seed)
        for position in range(min(len(mixture), _TEXT_SAMPLES)):
            for turn in mixture.read(mixture.order.at(position)).turns:
                yield turn.question
                yield turn.answer


class MixtureConversations(Dataset[dict[str, Any]]):
    """Conversations of a mixture by position; a corrupt or over-long one is replaced as the policy says.

    Args:
        mixture: The data.
        processor: Measures conversations that may be too long.
        stage: What is asked of them.
        quarantine: The file that names samples which cannot be used.
    """

    def __init__(self, mixture: Mixture, processor: FusionProcessor, stage: StageConfig, quarantine: Path) -> None:
        self.mixture = mixture
        self.processor = processor
        self.num_latents = max(stage.num_latents)
        self.max_length = stage.max_length
        self.mirror = stage.data.mirror
        self.reader = SampleReader(mixture, self._decode, policy=stage.data.faults, quarantine=quarantine)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The conversation at a position of the run: its id, `messages` and the `image`."""
        conversation = self.reader.read_or_replace(position)
        if self.mirror and conversation["image"] is not None and self._is_mirrored(position):
            return conversation | {"image": ImageOps.mirror(conversation["image"])}
        return conversation

    def _is_mirrored(self, position: int) -> bool:
        return random.Random(f"mirror/{self.mixture.seed}/{position}").random() < 0.5

    def batches(
        self, batch_size: int, accumulation: int, num_steps: int, first_step: int, rank: int, processes: int
    ) -> Sampler[list[int]]:
        """Samples of one modality and similar length, within the mixture's order; see `GroupedPositions`."""
        return GroupedPositions(self.mixture, batch_size, accumulation, num_steps, first_step, rank, processes)

    def _decode(self, sample: Sample) -> dict[str, Any]:
        image = None if sample.image is None else load_image(sample.image)
        messages = to_messages(sample)
        # No tokenizer here makes more tokens than a text has bytes, so most samples need not be measured.
        first_turn = sum(len(text.encode()) for text in (sample.turns[0].question, sample.turns[0].answer))
        image_tokens = 0 if image is None else self.processor.num_image_tokens + self.num_latents
        if first_turn + image_tokens + _FRAME_BYTES > self.max_length:
            self._measure(messages, image)
        return {"id": sample.id, "source": sample.source, "messages": messages, "image": image}

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

    A step's samples are grouped together, then divided among its forward passes, and these among the processes. So
    the forward passes of a step are the same for any number of processes.

    Attributes:
        mixture: The data.
        batch_size: Rows of a forward pass.
        accumulation: Forward passes of an optimizer step, over all processes.
        num_steps: Optimizer steps of the whole stage.
        first_step: Where to start; those before are done.
        rank: Which process this is.
        processes: How many there are.
    """

    mixture: Mixture
    batch_size: int
    accumulation: int
    num_steps: int
    first_step: int = 0
    rank: int = 0
    processes: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        size = self.batch_size * self.accumulation
        steps = grouped_batches(self.mixture, self.first_step * size, size)
        for _, positions in zip(range(self.first_step, self.num_steps), steps, strict=False):  # steps have no end
            passes = positions.reshape(self.accumulation, self.batch_size)
            yield from rank_share(passes, self.rank, self.processes).tolist()

    def __len__(self) -> int:
        return self.num_steps * self.accumulation // self.processes


@dataclass(frozen=True)
class NamingCollator:
    """Adds to a batch under `rows` what its rows are called, for an error to name; no model takes that.

    Attributes:
        collate: Conversations -> a batch.
    """

    collate: Callable[[Sequence[dict[str, Any]]], Mapping[str, Any]]

    def __call__(self, conversations: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The batch and the source and id of each row."""
        rows = [f"{conversation['source']} {conversation['id']!r}" for conversation in conversations]
        return {**self.collate(conversations), "rows": rows}
