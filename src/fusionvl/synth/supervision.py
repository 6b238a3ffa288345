"""What is told of a run while it goes on: found rows, finished rows, tokens; and what looks at it: bar, tally, fuse.

A runner reports to a `Watch`. In the process that shows the bar this is the `Supervisor` itself; elsewhere a
`Reporter` collects `News`, which travel to the supervisor. Knows no steps and no cluster.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from fusionvl.synth.fuse import Fuse
from fusionvl.synth.progress import Price, Progress, tokens_between
from fusionvl.synth.rows import Row


class Watch(Protocol):
    """Is told of everything a runner does."""

    def found(self, shard: int, rows: Counter[str]) -> None:
        """A shard was opened: so many of its rows are finished already, by status."""

    def spent(self, before: Row, after: Row, price: Price) -> None:
        """A step was carried out."""

    def finished(self, shard: int, row: Row) -> None:
        """A row was finished.

        Raises:
            ValueError: When the run has to stop.
        """


@dataclass
class News:
    """What happened in some stretch of time, elsewhere.

    Attributes:
        found: Finished rows of every shard that was opened, by status.
        finished: Shard, status and reason of every row that was finished, in order.
        tokens: Read and written.
        cost: Of them, in US dollars.
    """

    found: list[tuple[int, Counter[str]]] = field(default_factory=list)
    finished: list[tuple[int, str, str]] = field(default_factory=list)
    tokens: int = 0
    cost: float = 0.0


class Reporter:
    """A watch that collects what it is told."""

    def __init__(self) -> None:
        self._news = News()

    def take(self) -> News:
        """What happened since this was last asked."""
        news, self._news = self._news, News()
        return news

    def found(self, shard: int, rows: Counter[str]) -> None:
        """Note that a shard was opened."""
        self._news.found.append((shard, rows))

    def spent(self, before: Row, after: Row, price: Price) -> None:
        """Note what a step took."""
        tokens, cost = tokens_between(before, after, price)
        self._news.tokens += tokens
        self._news.cost += cost

    def finished(self, shard: int, row: Row) -> None:
        """Note that a row was finished."""
        self._news.finished.append((shard, row.status, row.reason))


class Supervisor:
    """The watch over a whole run.

    Args:
        progress: Shows how far it is.
        fuse: Looks at every finished row.
    """

    def __init__(self, progress: Progress, fuse: Fuse) -> None:
        self._progress = progress
        self._fuse = fuse
        self._counted: dict[int, Counter[str]] = {}

    def found(self, shard: int, rows: Counter[str]) -> None:
        """Count the rows of a shard that were finished when it was opened, but for those that are counted already.

        A shard is opened a second time when what made it was lost; the rows told of before that are among those found.
        """
        new = Counter(rows)
        new.subtract(self._counted.get(shard, Counter()))
        self._counted[shard] = Counter(rows)
        self._progress.finished_before(new)

    def spent(self, before: Row, after: Row, price: Price) -> None:
        """Count what a step took."""
        self._progress.spent(*tokens_between(before, after, price))

    def finished(self, shard: int, row: Row) -> None:
        """Count a row.

        Raises:
            ValueError: When the fuse blows.
        """
        self._finished(shard, row.status, row.reason)

    def take(self, news: News) -> None:
        """Count what happened elsewhere.

        Raises:
            ValueError: When the fuse blows.
        """
        for shard, rows in news.found:
            self.found(shard, rows)
        self._progress.spent(news.tokens, news.cost)
        for shard, status, reason in news.finished:
            self._finished(shard, status, reason)

    def _finished(self, shard: int, status: str, reason: str) -> None:
        self._counted[shard][status] += 1
        self._progress.finished(status)
        self._fuse.note(status, reason)
