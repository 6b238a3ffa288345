"""The fuse: stops a run in which too many of the last rows went wrong, before all of it does.

Knows the status of finished rows and nothing of how they are made.
"""

from collections import Counter, deque
from dataclasses import dataclass

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
