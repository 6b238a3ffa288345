"""Which rows of a source take part: the `sampling_strategy` of upstream mixture files."""

import math
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusionvl.data.permutation import permuted

_STRATEGY = re.compile(r"(first|end|random):(\d+(?:\.\d+)?)(%?)")

Which: TypeAlias = Literal["all", "first", "end", "random"]


@dataclass(frozen=True)
class Strategy:
    """A parsed `sampling_strategy`.

    * `all`: every row.
    * `first:N`, `first:P%`: the first rows of the file.
    * `end:N`, `end:P%`: the last rows of the file.
    * `random:N`, `random:P%`: different rows drawn evenly by the run's seed and the source's name, so every process
      of a run and every resumption draws the same ones, for all passes.

    P % of the rows is rounded up. N above the number of rows means all of them, as upstream.

    Attributes:
        which: where the rows come from.
        amount: N or P; nothing for `all`.
        is_percentage: whether the amount is P.
    """

    which: Which
    amount: float = 0.0
    is_percentage: bool = False

    def count(self, rows: int) -> int:
        """Returns how many of a source's rows are taken."""
        if self.which == "all":
            return rows
        # Rounded first: 7 % of 100 is 7, though 0.07 * 100 is a little more.
        wanted = math.ceil(round(self.amount * rows / 100, 6)) if self.is_percentage else int(self.amount)
        return min(wanted, rows)


def parse_strategy(text: object) -> Strategy:
    """Reads a `sampling_strategy`.

    Raises:
        ValueError: if it is none of those that `Strategy` lists.
    """
    if text == "all":
        return Strategy("all")
    match = _STRATEGY.fullmatch(text.replace(" ", "")) if isinstance(text, str) else None
    if match is None:
        raise ValueError(
            f"unknown sampling_strategy {text!r}; use all, or first, end or random with a number or a percentage, "
            "as in first:1000 or random:10%"
        )
    which, amount, percent = match.groups()
    value = float(amount)
    if value == 0 or (percent and value > 100) or (not percent and "." in amount):
        rule = "more than 0 % and at most 100 %" if percent else "a whole number above 0"
        raise ValueError(f"sampling_strategy {text!r}: the amount must be {rule}")
    kinds: dict[str, Which] = {"first": "first", "end": "end", "random": "random"}
    return Strategy(kinds[which], value, bool(percent))


@dataclass(frozen=True)
class Selection:
    """The rows of one source that take part, numbered from 0. Computed when asked for, never stored.

    Attributes:
        strategy: how they are chosen.
        rows: of the whole source.
        label: decides a random choice.
    """

    strategy: Strategy
    rows: int
    label: str

    def __len__(self) -> int:
        return self.strategy.count(self.rows)

    def to_rows(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the source's rows for numbers below the length."""
        if self.strategy.which == "end":
            return numbers + (self.rows - len(self))
        if self.strategy.which == "random":
            return permuted(numbers, self.rows, self.label)
        return numbers
