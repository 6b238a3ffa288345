"""The order of training samples: one integer, the position, tells which sample comes next.

Stateless and seeded: any process may ask for any position, so a run resumes from the number of samples consumed and
sees the same samples whatever its workers or processes. Knows numbers only, no data.
"""

import functools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GlobalOrder:
    """Endless passes over `size` samples, each pass in another order.

    Attributes:
        size: Samples in a pass.
        seed: Decides every pass's order.
    """

    size: int
    seed: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError("There is nothing to order: the data holds no samples")

    def at(self, position: int) -> tuple[int, int]:
        """The (epoch, index) of the sample at a position of the run."""
        epoch, offset = divmod(position, self.size)
        return epoch, int(_permutation(self.size, self.seed, epoch)[offset])


@functools.lru_cache(maxsize=2)  # a run works on one pass and touches the next at its border
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(size)
