"""How far a run is: rows, tokens, cost, the time that is left; and the fuse, which stops one that goes wrong.

Knows the status and reason of finished rows; knows nothing of how they are made.
"""

import sys
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from tqdm import tqdm

_SECONDS_BETWEEN_LOG_LINES = 30.0
_FEWEST = 20


@dataclass
class FuseSettings:
    """When a run stops by itself.

    Attributes:
        window: How many finished rows are looked back on; the fuse never blows before so many are finished. In a run
            or share of fewer rows, as many as it has, but not fewer than 20: of so few, a share says nothing.
        max_errors: Largest share of errors among them.
        max_rejected: Largest share of rejected rows among them.
    """

    window: int = 100
    max_errors: float = 0.2
    max_rejected: float = 0.95

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"fuse: window must be at least 1, not {self.window}")


class Fuse:
    """Looks at every finished row, and raises when too many went wrong.

    Args:
        settings: When.
        rows: How many the run has, or this share of it.
    """

    def __init__(self, settings: FuseSettings, rows: int) -> None:
        self._settings = settings
        self._window = min(settings.window, max(rows, _FEWEST))
        self._last: deque[str] = deque(maxlen=self._window)
        self._reasons: deque[str] = deque(maxlen=self._window)

    def note(self, status: str, reason: str) -> None:
        """Take note of a finished row: its status, and why it is not `ok`.

        Raises:
            ValueError: When too many of the last rows are errors, or rejected; names the most frequent reason.
        """
        self._last.append(status)
        if status != "ok":
            self._reasons.append(reason)
        if len(self._last) < self._window:
            return
        for wrong, most in (("error", self._settings.max_errors), ("rejected", self._settings.max_rejected)):
            count = self._last.count(wrong)
            if count > most * len(self._last):
                frequent, times = Counter(self._reasons).most_common(1)[0]
                raise ValueError(
                    f"Stopped: {count} of the last {len(self._last)} rows are {wrong}, more than the fuse allows "
                    f"({most:.0%}). Most frequent reason ({times} times): {frequent}. Nothing is lost: run again to "
                    "go on, with --retry-errors to try failed rows again"
                )


@dataclass
class Tally:
    """Counts of a run.

    Attributes:
        rows: How many finished rows have each status.
        tokens: Read and written in this session.
        cost: Of them, in US dollars.
    """

    rows: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    cost: float = 0.0

    def __str__(self) -> str:
        words = (("ok", "ok"), ("error", "errors"), ("rejected", "rejected"))
        parts = [f"{self.rows[status]} {word}" for status, word in words if self.rows[status]]
        if self.tokens:
            parts.append(f"{self.tokens:,} tokens")
        if self.cost:
            parts.append(f"${self.cost:,.2f}")
        return ", ".join(parts)


class RunProgress:
    """Is told of everything that a run does: keeps the tally, moves the bar, minds the fuse.

    On a terminal there is a bar; elsewhere, as in a job's log, a line every half minute.

    Args:
        total: Rows there are to make.
        fuse: When to stop; None for never.
        shown: Whether to show anything.
    """

    def __init__(self, total: int, fuse: FuseSettings | None = None, *, shown: bool = True) -> None:
        self.tally = Tally()
        self._fuse = None if fuse is None else Fuse(fuse, total)
        self._bar = tqdm(
            total=total,
            unit=" rows",
            smoothing=0.05,
            disable=not shown,
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else _SECONDS_BETWEEN_LOG_LINES,
        )

    def found(self, rows: Mapping[str, int]) -> None:
        """Count rows, by status, that earlier sessions finished: they say nothing about the speed of this one."""
        self.tally.rows.update(rows)
        if not self._bar.disable:
            self._bar.initial += sum(rows.values())
            self._bar.n += sum(rows.values())

    def spent(self, tokens: int, cost: float) -> None:
        """Count tokens that were read and written, and what they cost."""
        self.tally.tokens += tokens
        self.tally.cost += cost

    def finished(self, status: str, reason: str) -> None:
        """Count a row that was finished just now.

        Raises:
            ValueError: When the fuse blows.
        """
        self.tally.rows[status] += 1
        self._advance(1)
        if self._fuse is not None:
            self._fuse.note(status, reason)

    def add(self, other: Tally) -> None:
        """Count what was done elsewhere, under a fuse of its own."""
        self.tally.rows.update(other.rows)
        self.spent(other.tokens, other.cost)
        self._advance(other.rows.total())

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._bar.close()

    def _advance(self, rows: int) -> None:
        self._bar.set_postfix_str(str(self.tally), refresh=False)
        self._bar.update(rows)
