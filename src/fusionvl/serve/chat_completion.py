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
        self._model = request.model
        self._with_logprobs = bool(request.logprobs)
        self._usage_follows = bool(request.stream_options and request.stream_options.include_usage)
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._choices = [_Choice() for _ in range(request.choices)]

    def add(self, event: Piece | Finish) -> None:
        """Take an event."""
        choice = self._choices[event.index]
        if isinstance(event, Finish):
            choice.finish = event
        else:
            choice.text.append(event.text)
            choice.logprobs += map(_logprob, event.logprobs)

    def as_json(self) -> dict[str, Any]:
        """The whole answer."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": "".join(choice.text), "refusal": None},
                "logprobs": {"content": choice.logprobs, "refusal": None} if self._with_logprobs else None,
                "finish_reason": choice.finish.reason if choice.finish else None,
            }
            for index, choice in enumerate(self._choices)
        ]
        return {**self._head("chat.completion"), "choices": choices, "usage": self._usage()}

    def first_chunks(self) -> list[dict[str, Any]]:
        """What a stream begins with: who speaks, for each choice."""
        return [self._chunk(index, {"role": "assistant", "content": ""}) for index in range(len(self._choices))]

    def chunk_of(self, event: Piece | Finish) -> dict[str, Any]:
        """The chunk that tells an event."""
        if isinstance(event, Finish):
            return self._chunk(event.index, {}, finish_reason=event.reason)
        return self._chunk(event.index, {"content": event.text}, list(map(_logprob, event.logprobs)))

    def last_chunks(self) -> list[dict[str, Any]]:
        """What a stream ends with: the counts of tokens, if they were asked for."""
        if not self._usage_follows:
            return []
        return [{**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage()}]

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _usage(self) -> dict[str, int]:
        finishes = [choice.finish for choice in self._choices if choice.finish is not None]
        prompt = max((finish.prompt_tokens for finish in finishes), default=0)
        answers = sum(finish.answer_tokens for finish in finishes)
        return {"prompt_tokens": prompt, "completion_tokens": answers, "total_tokens": prompt + answers}

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: list[dict[str, Any]] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        told = {"content": logprobs, "refusal": None} if self._with_logprobs and logprobs is not None else None
        choice = {"index": index, "delta": delta, "logprobs": told, "finish_reason": finish_reason}
        usage = {"usage": None} if self._usage_follows else {}
        return {**self._head("chat.completion.chunk"), "choices": [choice], **usage}


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    def entry(text: str, content: bytes, logprob: float) -> dict[str, Any]:
        return {"token": text, "bytes": list(content), "logprob": max(logprob, _LEAST_LOGPROB)}

    return {
        **entry(token.token, token.token_bytes, token.logprob),
        "top_logprobs": [entry(*alternative) for alternative in token.alternatives],
    }
