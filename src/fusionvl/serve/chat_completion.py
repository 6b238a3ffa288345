"""What a model tells of its answers, written down as OpenAI does: in one piece, or chunk by chunk.

Knows events and JSON; knows neither models nor HTTP.
"""

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from fusionvl.engine.events import Finish, Piece, TokenLogprob
from fusionvl.serve.protocol import ChatRequest

_LEAST_LOGPROB = -9999.0  # JSON has no infinity; OpenAI writes this number for what is out of reach


@dataclass
class _Choice:
    text: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish: Finish | None = None


class ChatCompletion:
    """Collects the events of one request and writes them down.

    Args:
        request: That they answer.
    """

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": request.model}
        self._choices = [_Choice() for _ in range(request.n)]

    def add(self, event: Piece | Finish) -> list[dict[str, Any]]:
        """Take an event; the chunks that tell it. The first one of a choice says who speaks."""
        choice = self._choices[event.index]
        begins = [] if choice.text else [self._chunk(event.index, {"role": "assistant", "content": ""})]
        if isinstance(event, Finish):
            choice.finish = event
            return [*begins, self._chunk(event.index, {}, finish_reason=event.reason)]
        logprobs = list(map(_logprob, event.logprobs))
        choice.text.append(event.text)
        choice.logprobs += logprobs
        return [*begins, self._chunk(event.index, {"content": event.text}, self._told(logprobs))]

    def as_json(self) -> dict[str, Any]:
        """The whole answer."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": "".join(choice.text), "refusal": None},
                "logprobs": self._told(choice.logprobs),
                "finish_reason": choice.finish.reason if choice.finish else None,
            }
            for index, choice in enumerate(self._choices)
        ]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": self._usage()}

    def last_chunk(self) -> dict[str, Any]:
        """What a stream ends with where the counts of tokens are asked for."""
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self._usage()}

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        usage = {"usage": None} if self._request.stream_options.include_usage else {}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **usage}

    def _told(self, logprobs: list[dict[str, Any]]) -> dict[str, Any] | None:
        return {"content": logprobs, "refusal": None} if self._request.logprobs else None

    def _usage(self) -> dict[str, int]:
        finishes = [choice.finish for choice in self._choices if choice.finish is not None]
        prompt = max((finish.prompt_tokens for finish in finishes), default=0)
        answers = sum(finish.answer_tokens for finish in finishes)
        return {"prompt_tokens": prompt, "completion_tokens": answers, "total_tokens": prompt + answers}


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    def entry(text: str, content: bytes, logprob: float) -> dict[str, Any]:
        return {"token": text, "bytes": list(content), "logprob": max(logprob, _LEAST_LOGPROB)}

    return {
        **entry(token.token, token.token_bytes, token.logprob),
        "top_logprobs": [entry(*alternative) for alternative in token.alternatives],
    }
