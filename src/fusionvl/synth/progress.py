"""How far a run is: rows, rows per second, tokens, cost and the time that is left.

Knows rows' states and prices; knows no steps.
"""

import sys
from collections import Counter
from dataclasses import dataclass

from tqdm import tqdm

from fusionvl.synth.rows import Row

_SECONDS_BETWEEN_LOG_LINES = 30.0


@dataclass
class Price:
    """What a million tokens cost, in US dollars.

    Attributes:
        input: Those that are read.
        output: Those that are written.
    """

    input: float = 0.0
    output: float = 0.0


def tokens_between(before: Row, after: Row, price: Price) -> tuple[int, float]:
    """How many tokens a step read and wrote for a row, and what they cost in US dollars."""
    read = after.input_tokens - before.input_tokens
    written = after.output_tokens - before.output_tokens
    return read + written, (read * price.input + written * price.output) / 1e6


class Tally:
    """Counts of a run.

    Attributes:
        rows: How many finished rows have each status.
        tokens: Read and written in this session.
        cost: Of them, in US dollars.
    """

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.tokens = 0
        self.cost = 0.0

    def __str__(self) -> str:
        parts = [f"{self.rows[status]} {word}" for status, word in _WORDS if self.rows[status]]
        if self.tokens:
            parts.append(f"{self.tokens:,} tokens")
        if self.cost:
            parts.append(f"${self.cost:,.2f}")
        return ", ".join(parts)


_WORDS = (("ok", "ok"), ("error", "errors"), ("rejected", "rejected"))


class Progress:
    """A bar on a terminal; elsewhere, as in a job's log, a line every half minute.

    Args:
        total: Rows there are to make.
        tally: What to tell besides.
        shown: Whether to show anything.
    """

    def __init__(self, total: int, tally: Tally, shown: bool = True) -> None:
        self.tally = tally
        self._bar = tqdm(
            total=total,
            unit=" rows",
            smoothing=0.05,
            disable=not shown,
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else _SECONDS_BETWEEN_LOG_LINES,
        )

    def finished_before(self, rows: Counter[str]) -> None:
        """Count rows that earlier sessions finished: they say nothing about the speed of this one."""
        self.tally.rows.update(rows)
        if not self._bar.disable:
            self._bar.initial += rows.total()
            self._bar.n += rows.total()

    def spent(self, tokens: int, cost: float) -> None:
        """Count tokens that were read and written, and what they cost."""
        self.tally.tokens += tokens
        self.tally.cost += cost

    def finished(self, status: str) -> None:
        """Count a row that was finished just now."""
        self.tally.rows[status] += 1
        self._bar.set_postfix_str(str(self.tally), refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._bar.close()
