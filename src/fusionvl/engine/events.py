"""What is told of the answers to a conversation while they are generated: pieces of text, then how each answer ended.

Plain values. Knows no model, no HTTP.
"""

from dataclasses import dataclass
from typing import Literal


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
