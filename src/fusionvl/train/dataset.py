"""Rows of the run's optimizer steps -> conversations and forward passes, for a data loader.

Knows the data room and recipes; knows no tensors. A position alone decides the sample and a step's number its latent
tokens, so nothing needs saving.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from PIL import ImageOps
from torch.utils.data import Dataset, Sampler

from fusionvl.data.batches import OptimizerSteps, TokenEstimate, share_of
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


class RowOfStep(NamedTuple):
    """What a data loader asks for.

    Attributes:
        position: Of the run.
        num_latents: Of the optimizer step that the row belongs to.
    """

    position: int
    num_latents: int


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
        self.stage = stage
        self.reader = SampleReader(mixture, self._decode, policy=stage.data.faults, quarantine=quarantine)

    def __getitem__(self, row: RowOfStep) -> dict[str, Any]:
        """The conversation of a row: its id, `messages`, the `image`, and the step's `num_latents`."""
        conversation = self.reader.read_or_replace(row.position) | {"num_latents": row.num_latents}
        if self.stage.data.mirror and conversation["image"] is not None and self._is_mirrored(row.position):
            return conversation | {"image": ImageOps.mirror(conversation["image"])}
        return conversation

    def batches(
        self, batch_size: int, accumulation: int, num_steps: int, first_step: int, rank: int, processes: int
    ) -> "ForwardPasses":
        """The forward passes of one of several processes; the arguments are those of `ForwardPasses`."""
        steps = OptimizerSteps(
            self.mixture,
            rows=batch_size,
            passes=accumulation,
            num_latents=tuple(self.stage.num_latents),
            estimate=TokenEstimate(self.processor.num_image_tokens, self.stage.max_length),
            stage=self.stage.name,
        )
        return ForwardPasses(steps, num_steps, first_step, rank, processes)

    def _is_mirrored(self, position: int) -> bool:
        return random.Random(f"mirror/{self.mixture.seed}/{position}").random() < 0.5

    def _decode(self, sample: Sample) -> dict[str, Any]:
        image = None if sample.image is None else load_image(sample.image)
        messages = to_messages(sample)
        # No tokenizer here makes more tokens than a text has bytes, so most samples need not be measured.
        first_turn = sum(len(text.encode()) for text in (sample.turns[0].question, sample.turns[0].answer))
        image_tokens = 0 if image is None else self.processor.num_image_tokens + max(self.stage.num_latents)
        if first_turn + image_tokens + _FRAME_BYTES > self.stage.max_length:
            self._measure(messages, image)
        return {"id": sample.id, "source": sample.source, "messages": messages, "image": image}

    def _measure(self, messages: list[dict[str, Any]], image: Any) -> None:
        """Encode the first turn; an `OverLongError` says that it does not fit."""
        first_turn = [dict(message, content=list(message["content"])) for message in messages[:2]]
        if image is not None:
            first_turn[0]["content"][0] = {"type": "image", "image": image}
        options = {"max_length": self.stage.max_length, "num_latents": max(self.stage.num_latents)}
        self.processor.apply_chat_template(first_turn, tokenize=True, return_dict=True, processor_kwargs=options)


@dataclass(frozen=True)
class ForwardPasses(Sampler[list[RowOfStep]]):
    """The rows of one process's forward passes, pass by pass, from one optimizer step on.

    Attributes:
        steps: The stage's, the same for all processes.
        num_steps: Optimizer steps of the whole stage.
        first_step: Where to start; those before are done.
        rank: Which process this is.
        processes: How many share the forward passes of a step.
    """

    steps: OptimizerSteps
    num_steps: int
    first_step: int = 0
    rank: int = 0
    processes: int = 1

    def __iter__(self) -> Iterator[list[RowOfStep]]:
        for step in islice(self.steps.starting_at(self.first_step), self._to_come):
            for positions in share_of(step, self.rank, self.processes).tolist():
                yield [RowOfStep(position, step.num_latents) for position in positions]

    def __len__(self) -> int:
        return self._to_come * self.steps.passes // self.processes

    @property
    def _to_come(self) -> int:
        return max(0, self.num_steps - self.first_step)


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
