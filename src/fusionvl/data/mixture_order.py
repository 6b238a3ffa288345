"""Which row of which data set stands at which position of a run. A function of sizes, weights and seed alone.

A run's whole state is one integer, the number of samples consumed. Any process may ask for any position, so the
samples are the same whatever the processes, the workers or the interruptions. Knows numbers only, no data.

Positions are divided into blocks of `BLOCK`. A block takes from each source as many samples as its share asks for
(see `taken`), shuffled by a label of its own. The k-th sample taken from a source is the k-th of an endless row of
passes over it, each pass in another order.
"""

import functools
import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusionvl.data.permutation import permuted, shuffled

BLOCK = 4096
_BLOCKS_KEPT = 64


class Place(NamedTuple):
    """A row, and the pass over its source in which it comes."""

    source: int
    row: int
    epoch: int


class Places(NamedTuple):
    """Many places: three arrays of one length."""

    source: NDArray[np.int64]
    row: NDArray[np.int64]
    epoch: NDArray[np.int64]


@dataclass(frozen=True)
class MixtureOrder:
    """The endless order of a mixture's samples.

    Without weights, sources have their natural proportions and every sample comes exactly once in each round of
    `sum(sizes)` positions. With weights, a source's share of the samples is its weight's share of all weights, and a
    source starts its next pass when its samples are used up, whatever the others do.

    Attributes:
        sizes: the rows of each source.
        seed: decides the whole order.
        weights: of each source, or None.

    Raises:
        ValueError: if there are no rows, or the weights do not fit the sources.
    """

    sizes: tuple[int, ...]
    seed: int
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"there is nothing to order: the sources have {self.sizes or 'no'} rows")
        if self.weights is None:
            return
        if len(self.weights) != len(self.sizes):
            raise ValueError(f"{len(self.weights)} weights for {len(self.sizes)} sources")
        if not all(0 < weight < float("inf") for weight in self.weights):
            raise ValueError(f"weights must be positive numbers, got {self.weights}")

    @property
    def round_length(self) -> int | None:
        """Positions until every sample has come once; None with weights."""
        return sum(self.sizes) if self.weights is None else None

    def at(self, position: int) -> Place:
        """Returns the place at a position of the run."""
        places = self.places(np.array([position], dtype=np.int64))
        return Place(*(int(values[0]) for values in places))

    def places(self, positions: NDArray[np.int64]) -> Places:
        """Returns the places at positions of the run.

        Raises:
            ValueError: if a position is negative.
        """
        if len(positions) and positions.min() < 0:
            raise ValueError(f"positions count from 0, got {positions.min()}")
        rounds, offsets = np.divmod(positions, self.round_length or np.iinfo(np.int64).max)
        found = Places(*(np.empty(len(positions), dtype=np.int64) for _ in Places._fields))
        blocks = (self.round_length or np.iinfo(np.int64).max) // BLOCK + 1  # of a round
        keys = rounds * blocks + offsets // BLOCK
        for key in np.unique(keys).tolist():
            round_number, block = divmod(key, blocks)
            own = keys == key
            within = offsets[own] - block * BLOCK
            for target, values in zip(found, _block(self, round_number, block), strict=True):
                target[own] = values[within]
        return found


@functools.lru_cache(maxsize=_BLOCKS_KEPT)
def _block(order: MixtureOrder, round_number: int, block: int) -> Places:
    start, stop = block * BLOCK, (block + 1) * BLOCK
    if order.round_length is not None:
        stop = min(stop, order.round_length)
    shares = np.array(order.sizes if order.weights is None else order.weights, dtype=np.float64)
    before = taken(shares, start)
    counts = taken(shares, stop) - before
    numbers = np.repeat(np.arange(len(counts)), counts)
    sources = shuffled(numbers, f"block/{order.seed}/{round_number}/{block}")
    rows, epochs = np.empty_like(sources), np.empty_like(sources)
    for number in np.flatnonzero(counts).tolist():
        size = order.sizes[number]
        first = int(before[number]) + (round_number * size if order.weights is None else 0)
        taken_before = first + np.arange(counts[number])
        own = sources == number
        epochs[own] = taken_before // size
        rows[own] = _rows(order, number, taken_before)
    return Places(sources, rows, epochs)


def _rows(order: MixtureOrder, source: int, taken_before: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of a source's samples, numbered over all its passes and given in rising order."""
    size = order.sizes[source]
    first, last = int(taken_before[0]) // size, int(taken_before[-1]) // size
    passes = [taken_before[taken_before // size == epoch] % size for epoch in range(first, last + 1)]
    labels = (f"rows/{order.seed}/{source}/{epoch}" for epoch in itertools.count(first))
    return np.concatenate([permuted(own, size, label) for own, label in zip(passes, labels, strict=False)])


def taken(shares: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Returns how many of the first `total` samples come from each source: Webster's (Sainte-Laguë's) method.

    The i-th sample of a source with share s has the time (2i + 1) / s; samples come in order of time, at equal times
    in order of the sources. So no count ever falls as the total grows; a count differs from the exact proportion p of
    the total by at most (1 + p / total * number of sources) / 2; and when the shares are the sources' sizes, the first
    sum(sizes) samples are each source exactly once.
    """
    # Start a little before the total, then take the rest one by one.
    time = 2 * max(total - 2 * len(shares), 0) / shares.sum()
    counts = np.maximum(np.floor((time * shares + 1) / 2), 0).astype(np.int64)
    counts -= (counts > 0) & ((2 * counts - 1) / shares > time)
    for _ in range(total - int(counts.sum())):
        counts[np.argmin((2 * counts + 1) / shares)] += 1
    return counts
