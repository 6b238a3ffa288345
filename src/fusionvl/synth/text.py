"""What a language model is asked and what it answers: the contract between text steps and backends.

Knows no prompts and no backend.
"""

from dataclasses import dataclass
from typing import Any, Protocol

Messages = tuple[tuple[str, str], ...]
"""A conversation so far: (role, text), the roles being system, user and assistant."""


@dataclass(frozen=True, slots=True)
class TextRequest:
    """One request.

    Attributes:
        messages: The conversation, to be gone on with.
        seed: Of sampling.
        schema_name: Names the schema.
        schema: The JSON schema of the answer; a backend that cannot enforce it may leave it aside.
    """

    messages: Messages
    seed: int
    schema_name: str
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TextReply:
    """One answer.

    Attributes:
        text: As written; empty when there was none.
        model: What wrote it.
        finish_reason: Why it ended: `stop`, `length`, or whatever the backend says.
        input_tokens: How many were read.
        output_tokens: How many were written.
        attempts: How often it had to be asked for.
    """

    text: str
    model: str
    finish_reason: str
    input_tokens: int = 0
    output_tokens: int = 0
    attempts: int = 1


class RequestError(Exception):
    """A request got no answer.

    Args:
        reason: Why, in one sentence.
        attempts: How often it was tried.
    """

    def __init__(self, reason: str, attempts: int = 1) -> None:
        super().__init__(reason)
        self.attempts = attempts


class TextBackend(Protocol):
    """Anything that answers requests, many at a time."""

    async def complete(self, request: TextRequest) -> TextReply:
        """Answer a request.

        Raises:
            RequestError: When this request got no answer.
            ValueError: When no request would: a wrong key, an unknown model.
        """

    def close(self) -> None:
        """Give back connections and processes."""
