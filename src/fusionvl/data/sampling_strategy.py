"""Which rows of a source take part: the `sampling_strategy` of upstream mixture files."""

import math
import re
from dataclasses import dataclass
from typing import Self

_STRATEGY = re.compile(r"(first|end|random):(\d+(?:\.\d+)?)(%?)")


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
        which: where the rows come from: `all`, `first`, `end` or `random`.
        amount: N or P; nothing for `all`.
        is_percentage: whether the amount is P.
    """

    which: str
    amount: float = 0.0
    is_percentage: bool = False

    @classmethod
    def parse(cls, text: object) -> Self:
        """Reads a `sampling_strategy`.

        Raises:
            ValueError: if it is none of those above.
        """
        if text == "all":
            return cls("all")
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
        return cls(which, value, bool(percent))

    def count(self, rows: int) -> int:
        """Returns how many of a source's rows are taken."""
        if self.which == "all":
            return rows
        # Rounded first: 7 % of 100 is 7, though 0.07 * 100 is a little more.
        wanted = math.ceil(round(self.amount * rows / 100, 6)) if self.is_percentage else int(self.amount)
        return min(wanted, rows)
