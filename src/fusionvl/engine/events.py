"""How a conversation is to be answered, and what is told of its answers while they are generated.

Plain values: settings; pieces of text, then how each answer ended. Knows no model, no HTTP.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SamplingSettings:
    """How a conversation is answered.

    Attributes:
        max_new_tokens: Bound on each answer; the decoder's context may bound it further.
        temperature: 0 is greedy.
        top_p: Share of probability that is sampled from; 1 is all of it.
        seed: Of the first answer's random numbers; every further answer has the next seed. None draws one.
        stop: Texts that end an answer; they are not part of it.
        top_logprobs: How many alternatives to report for each token; None reports no log probabilities at all.
        num_latents: Latent tokens of each question; None is the processor's default.
        n: Answers to the conversation.

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
    n: int = 1

    def __post_init__(self) -> None:
        for name, value in (("max_new_tokens", self.max_new_tokens), ("n", self.n)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
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
    """A part of an answer; the texts of an answer's pieces, joined, are the answer.

    Attributes:
        index: Which of the answers, from 0.
        text: Whole characters only; may be empty, when only log probabilities are told.
        logprobs: Of the tokens that came since the last piece, when they were asked for.
    """

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Finish:
    """The last event of an answer.

    Attributes:
        index: Which of the answers, from 0.
        reason: `stop`: the model ended its turn or a stop text came; `length`: no new tokens were left.
        prompt_tokens: Tokens of the prompt, image and latent tokens among them.
        answer_tokens: Tokens generated, the end of the turn among them.
    """

    index: int
    reason: Literal["stop", "length"]
    prompt_tokens: int
    answer_tokens: int


Event = Piece | Finish
