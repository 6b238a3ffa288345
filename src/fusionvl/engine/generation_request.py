"""What goes into continuous batching and what comes out: settings of one answer, and the events it is told in.

Plain values, so that they may cross a process boundary. Knows no model, no HTTP.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SamplingSettings:
    """How one answer is generated.

    Attributes:
        max_new_tokens: Bound on the answer; the decoder's context may bound it further.
        temperature: 0 is greedy.
        top_p: Share of probability that is sampled from; 1 is all of it.
        seed: Of this answer's own random numbers, so that it does not depend on what runs beside it; None draws one.
        stop: Texts that end the answer; they are not part of it.
        top_logprobs: How many alternatives to report for each token; None reports no log probabilities at all.
        num_latents: Latent tokens of each question; None is the processor's default.

    Raises:
        ValueError: On values outside their range.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    num_latents: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be a finite number of at least 0, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.top_logprobs is not None and self.top_logprobs < 0:
            raise ValueError(f"top_logprobs must be at least 0, not {self.top_logprobs}")
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed must be a whole number of 64 bits, not {self.seed}")
        if isinstance(self.stop, str) or not all(self.stop):
            raise ValueError(f"stop must be texts of at least one character each, not {self.stop!r}")


@dataclass(frozen=True)
class TokenLogprob:
    """One generated token and how likely it was, before temperature and top_p.

    Attributes:
        token: Its text.
        token_bytes: Its bytes; a character may be spread over several tokens.
        logprob: Natural logarithm of its probability.
        alternatives: The most likely tokens at this place, as (text, bytes, log probability), most likely first.
    """

    token: str
    token_bytes: bytes
    logprob: float
    alternatives: tuple[tuple[str, bytes, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """A part of an answer; the pieces' texts, joined, are the answer.

    Attributes:
        text: Whole characters only; may be empty, when only log probabilities are told.
        logprobs: Of the tokens that came since the last piece, when they were asked for.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Finish:
    """The last event of an answer.

    Attributes:
        reason: `stop`: the model ended its turn or a stop text came; `length`: no new tokens were left; `cancelled`.
        prompt_tokens: Tokens of the prompt, image and latent tokens among them.
        answer_tokens: Tokens generated.
        image_was_cached: Whether the picture's features were known already.
        queue_seconds: From submission to prefill.
        first_token_seconds: From submission to the first token; None when it was cancelled before there was one.
        total_seconds: From submission to this event.
    """

    reason: Literal["stop", "length", "cancelled"]
    prompt_tokens: int
    answer_tokens: int
    image_was_cached: bool
    queue_seconds: float
    first_token_seconds: float | None
    total_seconds: float


@dataclass(frozen=True)
class Failure:
    """The last event of an answer that went wrong.

    Attributes:
        message: One sentence for the user.
        is_users: Whether the request was at fault (a `ValueError`), and not the model or the machine.
        is_late: Whether its deadline passed.
        is_too_long: Whether the decoder's context does not hold the conversation.
    """

    message: str
    is_users: bool
    is_late: bool = False
    is_too_long: bool = False


class ContextExceeded(ValueError):  # noqa: N818 - what happened, as QueueFull
    """The decoder's context does not hold the conversation."""


Event = Piece | Finish | Failure
Listener = Callable[[Event], None]
"""Called from the batching thread; must return at once."""
