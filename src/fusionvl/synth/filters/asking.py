"""Asks a model questions with an expected outcome, many at a time, and counts how often it comes.

The model is anything with `async complete(messages) -> str`. Knows no prompts; `closed_book.py`, `blind.py` and
`judge.py` write them.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from fusionvl.synth.filters.columns import Score

Message: TypeAlias = dict[str, Any]
"""A chat message as OpenAI-compatible endpoints take it."""


class Model(Protocol):
    """What answers: an endpoint, a local model, or a test."""

    async def complete(self, messages: Sequence[Message]) -> str:
        """Answers a conversation.

        Raises:
            ModelError: If there is no answer to be had.
        """


class ModelError(ValueError):
    """A model gave no answer to one request; others may still be answered."""


@dataclass(frozen=True)
class Ask:
    """One request about one turn.

    Attributes:
        row: Number of the row it belongs to.
        turn: Number of the turn.
        messages: The request.
        accepts: Whether a reply is as expected.
    """

    row: int
    turn: int
    messages: list[Message]
    accepts: Callable[[str], bool]


@dataclass
class Verdict:
    """What the requests about one turn came to."""

    accepted: int = 0
    answered: int = 0
    errors: int = 0

    @property
    def share(self) -> float | None:
        """Of the answers, those that were as expected; None without answers."""
        return self.accepted / self.answered if self.answered else None


async def ask_all(model: Model, asks: Sequence[Ask], *, rows: int, parallel: int) -> list[dict[int, Verdict]]:
    """Sends requests, a bounded number at a time.

    Args:
        model: Answers them.
        asks: The requests.
        rows: How many rows there are.
        parallel: Most requests in flight.

    Returns:
        For each row its turns' verdicts, by the turn's number; a turn that nothing was asked about has none.

    Raises:
        ValueError: If every one of several requests failed: the model is out of order, not the rows.
    """
    verdicts: list[dict[int, Verdict]] = [{} for _ in range(rows)]
    free = asyncio.Semaphore(parallel)
    last_error: list[ModelError] = []

    async def send(ask: Ask) -> None:
        verdict = verdicts[ask.row].setdefault(ask.turn, Verdict())
        async with free:
            try:
                reply = await model.complete(ask.messages)
            except ModelError as error:
                verdict.errors += 1
                last_error[:] = [error]
                return
        verdict.answered += 1
        verdict.accepted += ask.accepts(reply)

    try:
        async with asyncio.TaskGroup() as group:
            for ask in asks:
                group.create_task(send(ask))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    if len(asks) > 1 and not any(verdict.answered for row in verdicts for verdict in row.values()):
        raise ValueError(f"the model answered none of {len(asks)} requests; the last error: {last_error[0]}")
    return verdicts


def summed_up(prefix: str, verdicts: dict[int, Verdict]) -> dict[str, Score]:
    """The scores of a row: its worst and its mean turn, turns asked about, and requests that failed."""
    shares = [share for verdict in verdicts.values() if (share := verdict.share) is not None]
    return {
        f"{prefix}_worst": min(shares) if shares else None,
        f"{prefix}_mean": sum(shares) / len(shares) if shares else None,
        f"{prefix}_asked": len(verdicts),
        f"{prefix}_errors": sum(verdict.errors for verdict in verdicts.values()),
    }


def score_names(prefix: str) -> tuple[str, ...]:
    """The names that `summed_up` gives."""
    return tuple(summed_up(prefix, {}))
