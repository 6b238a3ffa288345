"""Which rows a run makes, and in which shard each stands: computed from the recipe, never stored.

The k-th row of a run is the same in every process. Kinds are spread evenly over shards. Knows no steps and no files
but the captions.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from fusionvl.data.permutation import permuted
from fusionvl.synth.captions import Captions
from fusionvl.synth.kinds import kind_named
from fusionvl.synth.rows import Row, row_id


@dataclass(frozen=True)
class Plan:
    """The rows of a run.

    Attributes:
        source: Names where captions come from; part of every id.
        split: Of procedural scenes.
        seed: Another one gives other rows.
        counts: How many rows of each kind.
        shard_size: About how many rows a shard holds.
        captions: What rows start from; None for procedural scenes.

    Raises:
        ValueError: When a kind is unknown, a count is below 1, or there is nothing to make.
    """

    source: str
    split: str
    seed: int
    counts: dict[str, int]
    shard_size: int
    captions: Captions | None = None

    def __post_init__(self) -> None:
        if not self.counts:
            raise ValueError("rows: name at least one kind with its number of rows, for instance SynthColor: 100")
        for name, count in self.counts.items():
            kind_named(name)
            if count < 1:
                raise ValueError(f"rows: {name} must be at least 1, not {count}; leave the kind out instead")
        if self.shard_size < 1:
            raise ValueError(f"shard_size must be at least 1, not {self.shard_size}")

    def __len__(self) -> int:
        return sum(self.counts.values())

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-len(self) // self.shard_size)

    def rows_in(self, shard: int) -> int:
        """How many rows a shard has."""
        return len(range(shard, len(self), self.shards))

    def rows(self, shard: int) -> Iterator[Row]:
        """The rows of a shard as they are before anything was made, in order."""
        ends = list(accumulate(self.counts.values()))
        names = list(self.counts)
        for position in range(shard, len(self), self.shards):
            which = bisect_right(ends, position)
            yield self._row(names[which], position - (ends[which - 1] if which else 0))

    def _row(self, kind: str, number: int) -> Row:
        """The row of a kind with this number; each kind takes captions in an order of its own."""
        caption, variant = "", number
        if self.captions is not None:
            variant, place = divmod(number, len(self.captions))
            order = permuted(np.array([place]), len(self.captions), f"captions/{self.seed}/{kind}")
            caption = self.captions[int(order[0])]
        made_of = row_id(self.source, caption, kind, f"{self.split}.{self.seed}.{variant}")
        return Row(id=made_of, kind=kind, caption=caption, split=self.split)
