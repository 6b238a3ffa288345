"""One answer while it is generated: its sampler, its text so far, and the events its listener is told.

Knows one request and its tokens; knows no model and no neighbours.
"""

import logging
import time
from collections.abc import Collection, Sequence
from typing import Literal

from fusionvl.engine.emission import Detokenizer, Emission
from fusionvl.engine.generation_request import Event, Failure, Finish, Piece, TokenLogprob
from fusionvl.engine.sampling import LogProbabilities, Sampler
from fusionvl.engine.token_bytes import TokenBytes
from fusionvl.engine.waiting_line import Request

LOG = logging.getLogger(__name__)


class RunningAnswer:
    """An answer in the making.

    Args:
        request: The question.
        detokenizer: Fresh.
        token_bytes: Of the model's tokenizer.
        ends: Ids of tokens that end the model's turn.

    Attributes:
        sampler: Chooses its tokens.
        last_token: The token that the model has not seen yet.
        is_over: Whether its last event was told.
        answer_tokens: Tokens so far.
    """

    def __init__(
        self, request: Request, detokenizer: Detokenizer, token_bytes: TokenBytes, ends: Collection[int]
    ) -> None:
        self.request = request
        self.sampler = Sampler(request.settings)
        self.last_token = -1
        self.is_over = False
        self.answer_tokens = 0
        self._token_bytes = token_bytes
        self._emission = Emission(detokenizer, request.settings.stop)
        self._ends = ends
        self._room = 0
        self._prompt_tokens = 0
        self._image_was_cached = False
        self._started = time.monotonic()
        self._first_token: float | None = None

    def begin(self, prompt_tokens: int, room: int, image_was_cached: bool) -> None:
        """Note what the prefill has shown; `room` is how many tokens the answer may have."""
        self._prompt_tokens = prompt_tokens
        self._room = room
        self._image_was_cached = image_was_cached

    def take(self, token: int, likely: LogProbabilities | None) -> None:
        """Take the next token, with its log probabilities if the request wants them, and tell what it settles."""
        self.last_token = token
        self.answer_tokens += 1
        if self._first_token is None:
            self._first_token = time.monotonic()
        if token in self._ends:
            self.finish("stop")
            return
        text = self._emission.push(token)
        logprobs = () if likely is None else (self._logprob(token, *likely),)
        if text or logprobs:
            self._tell(Piece(text, logprobs))
        if self.is_over:
            return
        if self._emission.is_stopped:
            self.finish("stop")
        elif self.answer_tokens >= self._room:
            self.finish("length")

    def finish(self, reason: Literal["stop", "length", "cancelled"]) -> None:
        """Tell the text still held back and the end."""
        if (text := self._emission.finish()) and not self.is_over:
            self._tell(Piece(text))
        now, submitted = time.monotonic(), self.request.submitted
        self._tell_last(
            Finish(
                reason=reason,
                prompt_tokens=self._prompt_tokens,
                answer_tokens=self.answer_tokens,
                image_was_cached=self._image_was_cached,
                queue_seconds=self._started - submitted,
                first_token_seconds=None if self._first_token is None else self._first_token - submitted,
                total_seconds=now - submitted,
            )
        )

    def fail(self, failure: Failure) -> None:
        """Tell that it went wrong."""
        self._tell_last(failure)

    def drop_if_unwanted(self) -> bool:
        """End the answer if nobody wants it any more; whether that was so."""
        if self.request.is_cancelled:
            self.finish("cancelled")
        elif self.request.is_late:
            waited = time.monotonic() - self.request.submitted
            self.fail(Failure(f"The answer was not complete by its deadline, after {waited:.1f} s", False, True))
        return self.is_over

    def _logprob(self, token: int, logprob: float, likely: Sequence[tuple[int, float]]) -> TokenLogprob:
        return TokenLogprob(
            *self._text_and_bytes(token),
            logprob,
            tuple((*self._text_and_bytes(other), value) for other, value in likely),
        )

    def _text_and_bytes(self, token: int) -> tuple[str, bytes]:
        content = self._token_bytes.of(token)
        return content.decode(errors="replace"), content

    def _tell_last(self, event: Event) -> None:
        if not self.is_over:
            self.is_over = True
            self._tell(event)

    def _tell(self, event: Event) -> None:
        try:
            self.request.listener(event)
        except Exception:  # a listener's fault must not stop its neighbours
            LOG.exception("A listener of the batching raised an exception: its answer is dropped")
            self.is_over = True
