"""Global batches of like samples: one modality and similar lengths, within the one order of the run.

The order is cut into groups of several global batches. Inside a group, samples are sorted by modality and length and
cut into batches, and the batches are shuffled. All from the mixture and the step alone: every process computes the
same global batch and takes its share of it, so the number of processes or workers changes nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusionvl.data.mixture import Mixture
from fusionvl.data.permutation import hashed, shuffled


@dataclass(frozen=True)
class GroupedBatches:
    """The global batches of a run, by step.

    Attributes:
        mixture: the data.
        batch_size: samples of a global batch: over all processes and accumulated forward passes.
        group: batches that are sorted together; with 1, a batch is as the order has it, in another sequence.

    Raises:
        ValueError: if a number is below 1.
    """

    mixture: Mixture
    batch_size: int
    group: int = 32

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.group < 1:
            raise ValueError(f"batch_size and group must be at least 1, got {self.batch_size} and {self.group}")

    def at(self, step: int) -> NDArray[np.int64]:
        """Returns the positions of a step's global batch, shortest samples first."""
        number, within = divmod(step, self.group)
        return self._grouped(number)[within]

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """Yields the batches of all steps, without end."""
        return self.starting_at(0)

    def starting_at(self, step: int) -> Iterator[NDArray[np.int64]]:
        """Yields the batches of all steps from one on, without end."""
        number, within = divmod(step, self.group)
        while True:
            yield from self._grouped(number)[within:]
            number, within = number + 1, 0

    def _grouped(self, number: int) -> NDArray[np.int64]:
        """The batches of a group, one a row: each position of the group exactly once."""
        size = self.batch_size * self.group
        positions = np.arange(number * size, (number + 1) * size)
        has_image, lengths = self.mixture.statistics(positions)
        # Samples with text only come first, so one batch at most holds both kinds.
        by_kind = positions[np.lexsort((positions, lengths, has_image))]
        batches = by_kind.reshape(self.group, self.batch_size)
        turn = shuffled(np.arange(self.group), f"batches/{self.mixture.seed}/{number}/{hashed(str(size))}")
        return batches[turn]


def grouped_batches(mixture: Mixture, start: int, batch_size: int, *, group: int = 32) -> Iterator[NDArray[np.int64]]:
    """Yields global batches of positions, without end; see `GroupedBatches`.

    Args:
        mixture: the data; its seed decides the order.
        start: samples consumed before.
        batch_size: samples of a global batch.
        group: batches that are sorted together.

    Raises:
        ValueError: if `start` is not a whole number of batches: the run began with another batch size.
    """
    batches = GroupedBatches(mixture, batch_size, group)
    if start < 0 or start % batch_size:
        raise ValueError(f"{start} samples consumed are no whole number of global batches of {batch_size}")
    return batches.starting_at(start // batch_size)


def rank_share(batch: NDArray[np.int64], rank: int, world_size: int) -> NDArray[np.int64]:
    """Returns what one of several processes takes of a global batch: every `world_size`-th row, from `rank` on.

    A row is a sample, or the samples of a forward pass. A batch is sorted by length, so all processes get about the
    same amount of work.

    Raises:
        ValueError: if the batch cannot be shared evenly, or there is no such process.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"there is no process {rank} among {world_size}")
    if len(batch) % world_size:
        raise ValueError(f"a global batch of {len(batch)} cannot be shared evenly by {world_size} processes")
    return batch[rank::world_size]
