"""A listener that keeps what it is told until somebody asks: for tests, benchmarks and callers that do not stream.

Knows events; knows no model.
"""

import threading
import time

from fusionvl.engine.engine import Answer
from fusionvl.engine.generation_request import Event, Failure, Finish, Piece


class Collected:
    """The events of one answer.

    Attributes:
        pieces: So far.
        moments: `time.monotonic()` of each piece.
        end: The last event, None while there is none.
    """

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.moments: list[float] = []
        self.end: Finish | Failure | None = None
        self._is_over = threading.Event()

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, Piece):
            self.moments.append(time.monotonic())
            self.pieces.append(event)
        else:
            self.end = event
            self._is_over.set()

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(piece.text for piece in self.pieces)

    def wait(self, timeout: float | None = None) -> Finish | Failure:
        """Wait for the last event.

        Raises:
            TimeoutError: When it did not come in `timeout` seconds.
        """
        if not self._is_over.wait(timeout) or self.end is None:
            raise TimeoutError(f"The answer did not end within {timeout} s")
        return self.end

    def answer(self) -> Answer:
        """Wait for the answer.

        Raises:
            ValueError: When the request was at fault.
            TimeoutError: When the deadline passed.
            RuntimeError: When the model or the machine failed, or the answer was cancelled.
        """
        end = self.wait()
        if isinstance(end, Failure):
            kind = ValueError if end.is_users else TimeoutError if end.is_late else RuntimeError
            raise kind(end.message)
        if end.reason == "cancelled":
            raise RuntimeError(f"The answer was cancelled after {end.answer_tokens} tokens")
        return Answer(self.text, end.reason, end.prompt_tokens, end.answer_tokens)
