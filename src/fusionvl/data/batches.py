"""The optimizer steps of a run: how many latent tokens each has, and its rows in forward passes of like rows.

The one order of the run is cut into groups of many steps. Inside a group, rows are sorted by modality, number of turns
and length, cut into the rows of one step each, and the steps are shuffled. So a step's rows are alike however many
latent tokens a turn has, and processes that run its forward passes side by side finish together. A step's own rows are
sorted by their tokens and cut into forward passes, which then hold little padding.

All of it follows from the mixture and the number of the step: a resumed run or another number of processes has the
same steps and the same forward passes. Knows estimates of tokens; knows no tokenizer and no pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusionvl.data.mixture import Mixture
from fusionvl.data.mixture_order import MixtureOrder
from fusionvl.data.permutation import hashed, shuffled
from fusionvl.data.source import Shapes

_CHARACTERS_PER_TOKEN = 4  # of English under a vocabulary of a language model; rows are only compared with it
_TOKENS_OF_A_TURN = 12  # what a chat template writes around a question and its answer
_PASSES_OVER_A_SOURCE = 0.25  # most of a source that is sorted at once, so that a row meets itself in few steps


@dataclass(frozen=True)
class TokenEstimate:
    """How many tokens a row will have, from what an index knows of it.

    Attributes:
        image_tokens: tokens of an image.
        max_length: longer conversations are cut to this.
    """

    image_tokens: int
    max_length: int

    def of(self, shapes: Shapes, num_latents: int) -> NDArray[np.int64]:
        """Returns the estimated tokens of rows when each question about an image has `num_latents` latent tokens."""
        text = shapes.characters // _CHARACTERS_PER_TOKEN + _TOKENS_OF_A_TURN * shapes.turns
        image = shapes.has_image * (self.image_tokens + num_latents * shapes.turns)
        return np.minimum(text + image, self.max_length)


class OptimizerStep(NamedTuple):
    """One step of a run, the same for all processes.

    Attributes:
        number: from 0.
        num_latents: latent tokens of each question in this step.
        passes: int64 (forward passes, rows), positions of the run; shortest first, text alone before images.
    """

    number: int
    num_latents: int
    passes: NDArray[np.int64]


@dataclass(frozen=True)
class OptimizerSteps:
    """The endless optimizer steps of a stage.

    Attributes:
        mixture: the data; its seed decides order and latent counts.
        rows: of a forward pass.
        passes: forward passes of a step, over all processes.
        num_latents: the counts to draw a step's from, all equally likely.
        estimate: of a row's tokens.
        stage: its name; other stages draw other counts.
        group: steps whose rows are sorted together, if the sources are large enough.

    Raises:
        ValueError: if a number is below 1, or there are no counts to draw from.
    """

    mixture: Mixture
    rows: int
    passes: int
    num_latents: tuple[int, ...]
    estimate: TokenEstimate
    stage: str = ""
    group: int = 1024

    def __post_init__(self) -> None:
        numbers = {"rows": self.rows, "passes": self.passes, "group": self.group}
        for name, number in numbers.items():
            if number < 1:
                raise ValueError(f"{name} of an optimizer step must be at least 1, got {number}")
        if not self.num_latents:
            raise ValueError("num_latents is empty: give at least one count to draw from")

    def starting_at(self, number: int) -> Iterator[OptimizerStep]:
        """Yields the steps from one on, without end."""
        group = self._group_size()
        size = group * self.passes * self.rows
        first, within = divmod(number, group)
        while True:
            start = first * size
            shapes = self.mixture.shapes(np.arange(start, start + size))
            for rows in self._steps_of_group(shapes, group, f"{first}/{size}")[within:]:
                passes = self._forward_passes(shapes, rows, self.draw(number))
                yield OptimizerStep(number, self.draw(number), start + passes)
                number += 1
            first, within = first + 1, 0

    def draw(self, number: int) -> int:
        """Returns the number of latent tokens of a step."""
        return self.num_latents[hashed(f"latents/{self.mixture.seed}/{self.stage}/{number}") % len(self.num_latents)]

    def _group_size(self) -> int:
        rows = _shortest_pass(self.mixture.order) * _PASSES_OVER_A_SOURCE
        return max(1, min(self.group, int(rows) // (self.rows * self.passes)))

    def _steps_of_group(self, shapes: Shapes, group: int, label: str) -> NDArray[np.int64]:
        """Shares out a group's rows to its steps, (steps, rows of a step), each exactly once."""
        kinds = shapes.has_image * shapes.turns
        lengths = self.estimate.of(shapes, num_latents=0)
        # Every second kind falls in length, so that the step in which two kinds meet is of one length, too.
        lengths = np.where(kinds % 2, -lengths, lengths)
        steps = np.lexsort((lengths, kinds)).reshape(group, -1)  # stable: equal rows stay in the run's order
        return steps[shuffled(np.arange(group), f"batches/{self.mixture.seed}/{label}")]

    def _forward_passes(self, shapes: Shapes, rows: NDArray[np.int64], num_latents: int) -> NDArray[np.int64]:
        """Cuts a step's rows into forward passes, (passes, rows of a pass), by the tokens they have in this step."""
        own = Shapes(shapes.characters[rows], shapes.turns[rows], shapes.has_image[rows])
        tokens = self.estimate.of(own, num_latents)
        return rows[np.lexsort((tokens, own.has_image))].reshape(self.passes, self.rows)


def share_of(step: OptimizerStep, rank: int, processes: int) -> NDArray[np.int64]:
    """Returns the forward passes (passes, rows) that one of several processes runs in a step.

    Passes that processes run side by side are neighbours in length, so that none waits long for the others. Their
    seats go to and fro within a step and begin elsewhere in each, so that no process always has the longest.

    Raises:
        ValueError: if the passes cannot be shared evenly, or there is no such process.
    """
    if not 0 <= rank < processes:
        raise ValueError(f"there is no process {rank} among {processes}")
    if len(step.passes) % processes:
        raise ValueError(
            f"the {len(step.passes)} forward passes of an optimizer step cannot be shared evenly by {processes} "
            f"processes"
        )
    side_by_side = step.passes.reshape(-1, processes, step.passes.shape[1])
    seat = (rank + hashed(f"seat/{step.number}")) % processes
    seats = np.where(np.arange(len(side_by_side)) % 2, processes - 1 - seat, seat)
    return side_by_side[np.arange(len(side_by_side)), seats]


def _shortest_pass(order: MixtureOrder) -> float:
    """Positions until the first source has come once as a whole."""
    if order.weights is None:
        return sum(order.sizes)
    return min(size * sum(order.weights) / weight for size, weight in zip(order.sizes, order.weights, strict=True))
