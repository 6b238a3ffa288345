"""Answers that outlive the process that gives them: when it dies, another is asked the same again.

An answer depends on its conversation, its settings and its seed, and on nothing that runs beside it. So a repeated
answer begins with what was told already; that is skipped, and the client notices a pause. Knows no Ray, no HTTP.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from fusionvl.engine.generation_request import Event, Finish, Piece, SamplingSettings
from fusionvl.serve.errors import ApiError

T = TypeVar("T")
Ask = Callable[[Sequence[SamplingSettings], float], AsyncGenerator[tuple[int, Event], None]]
"""Asks one process: settings of the answers, seconds left; its events name the settings by number."""

ATTEMPTS = 3  # a request that kills whatever answers it must not take all processes with it
_LOG = logging.getLogger("fusionvl.serve")
_SEED_BOUND = 2**63


class ReplicaLost(Exception):  # noqa: N818 - not an error of the request
    """The process that was answering is gone; another may be asked."""


class _Differs(Exception):  # noqa: N818 - never leaves this module
    """A repeated answer is not the one that was begun."""


async def repeated(
    ask: Ask, settings: Sequence[SamplingSettings], seconds: float
) -> AsyncGenerator[tuple[int, Event], None]:
    """Answer a conversation once for each of the settings, asking again when a process dies.

    Args:
        ask: Raises `ReplicaLost` when its process dies.
        settings: Those that would draw a seed are given one, so that their answers can be repeated.
        seconds: For all attempts together.

    Yields:
        (Which of the settings, event); no text twice.

    Raises:
        ApiError: `worker_crashed` when the attempts are used up or a repeated answer differs; what `ask` raises.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    seeded = [_seeded(one) for one in settings]
    told = {index: _Told() for index in range(len(seeded))}  # of the answers that are not complete
    for _ in range(ATTEMPTS):
        indices = list(told)
        answers = ask([seeded[index] for index in indices], max(deadline - clock(), 0.0))
        try:
            async with contextlib.aclosing(answers) as events:
                async for number, event in events:
                    if (new := _new(told, indices[number], event)) is not None:
                        yield indices[number], new
            if not told:
                return
        except ReplicaLost as error:
            _LOG.warning("a replica is lost, %d answers are asked of another: %s", len(told), error)
        except _Differs:
            raise ApiError(
                "worker_crashed",
                "The model's process ended while it answered, and a second answer was not the same: ask again",
                None,
                1,
            ) from None
        for one in told.values():
            one.begin_again()
    raise _lost_too_often()


async def repeated_call(call: Callable[[], Awaitable[T]]) -> T:
    """Call a function of a process, again of another when it dies.

    Raises:
        ApiError: `worker_crashed` when the attempts are used up; what `call` raises.
    """
    for _ in range(ATTEMPTS):
        try:
            return await call()
        except ReplicaLost as error:
            _LOG.warning("a replica is lost, a call is asked of another: %s", error)
    raise _lost_too_often()


def _lost_too_often() -> ApiError:
    return ApiError(
        "worker_crashed", f"The model's processes ended {ATTEMPTS} times while they answered. Try again.", None, 5
    )


def _seeded(settings: SamplingSettings) -> SamplingSettings:
    if settings.seed is None and settings.temperature > 0:
        return replace(settings, seed=secrets.randbelow(_SEED_BOUND))
    return settings


def _new(told: "dict[int, _Told]", index: int, event: Event) -> Event | None:
    """What of an event was not told yet; the last event of an answer closes it."""
    if isinstance(event, Piece):
        return told[index].add(event)
    one = told.pop(index)
    if isinstance(event, Finish):
        one.check_complete()
    return event


class _Told:
    """What an answer has told, and how far its present attempt has come."""

    def __init__(self) -> None:
        self._text = ""
        self._tokens: list[bytes] = []
        self.begin_again()

    def begin_again(self) -> None:
        self._characters_seen = 0
        self._tokens_seen = 0

    def add(self, piece: Piece) -> Piece | None:
        """The part of a piece that is new; pieces may be cut differently the second time."""
        known = self._text[self._characters_seen : self._characters_seen + len(piece.text)]
        tokens = [token.token_bytes for token in piece.logprobs]
        known_tokens = self._tokens[self._tokens_seen : self._tokens_seen + len(tokens)]
        if not piece.text.startswith(known) or tokens[: len(known_tokens)] != known_tokens:
            raise _Differs
        new = Piece(piece.text[len(known) :], piece.logprobs[len(known_tokens) :])
        self._text += new.text
        self._tokens += tokens[len(known_tokens) :]
        self._characters_seen += len(piece.text)
        self._tokens_seen += len(tokens)
        return new if new.text or new.logprobs else None

    def check_complete(self) -> None:
        if self._characters_seen < len(self._text) or self._tokens_seen < len(self._tokens):
            raise _Differs
