"""A chat request -> conversation and settings -> an answer in one piece or in chunks, as OpenAI writes them.

Knows the protocol's shapes and the worker's events; knows no HTTP and no processes' insides.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fusionvl.engine.generation_request import Event, Failure, Finish, Piece, SamplingSettings, TokenLogprob
from fusionvl.serve.backend import Pool
from fusionvl.serve.errors import ApiError
from fusionvl.serve.images import ImageReader
from fusionvl.serve.metrics import Metrics
from fusionvl.serve.protocol import ChatRequest, Message
from fusionvl.serve.settings import Limits

_SEED_BOUND = 2**63
_FIRST_ROLES = ("system", "developer")


@dataclass(frozen=True)
class Prompt:
    """What a worker needs of a request.

    Attributes:
        messages: The conversation; images are encoded bytes.
        settings: One for each choice.
    """

    messages: list[dict[str, Any]]
    settings: tuple[SamplingSettings, ...]
    has_image: bool


class ChatService:
    """Answers chat requests.

    Args:
        pool: The models.
        images: Finds the bytes of images.
        metrics: Counts answers.
        limits: Of requests.
    """

    def __init__(self, pool: Pool, images: ImageReader, metrics: Metrics, limits: Limits) -> None:
        self._pool = pool
        self._images = images
        self._metrics = metrics
        self._limits = limits

    async def complete(self, request: ChatRequest, owner: str) -> dict[str, Any]:
        """Answer in one piece.

        Raises:
            ApiError: When the request is refused, too slow, or the worker dies.
        """
        completion = _Completion(request)
        deadline = self._deadline()
        async with self._in_time(deadline), contextlib.aclosing(self._events(request, owner, deadline)) as events:
            async for index, event in events:
                completion.add(index, event)
        return completion.as_json()

    async def stream(self, request: ChatRequest, owner: str) -> AsyncGenerator[dict[str, Any], None]:
        """Answer in chunks. Returns when the first event is there, so that refusals still have their status.

        Raises:
            ApiError: As `complete`, before the first event; later it is the last chunk.
        """
        deadline = self._deadline()
        events = self._events(request, owner, deadline)
        try:
            async with self._in_time(deadline):
                first = await anext(events)
        except BaseException:
            await events.aclose()
            raise
        return self._chunks(request, first, events, deadline)

    async def explain(self, request: ChatRequest, owner: str) -> dict[str, Any]:
        """Look inside the model while it reads one question about one image (`Explanation.to_dict`).

        Raises:
            ApiError: When the request is more than that, or as `complete`.
        """
        if len(request.messages) != 1 or sorted(part.type == "text" for part in request.messages[0].content) != [0, 1]:
            raise ApiError(
                "unsupported_content",
                "An explanation is of one question about one image: send one user message with one text and one image",
                "messages",
            )
        async with self._in_time(self._deadline()), self._pool.use(request.model) as worker:
            prompt = await self.prompt(request, owner)
            parts = {part["type"]: part[part["type"]] for part in prompt.messages[0]["content"]}
            settings = prompt.settings[0]
            return dict(
                await worker.call(
                    "explain",
                    image=parts["image"],
                    question=parts["text"],
                    num_latents=settings.num_latents,
                    max_new_tokens=settings.max_new_tokens,
                )
            )

    async def _chunks(
        self,
        request: ChatRequest,
        first: tuple[int, Event],
        events: AsyncGenerator[tuple[int, Event], None],
        deadline: float,
    ) -> AsyncGenerator[dict[str, Any], None]:
        completion = _Completion(request)
        async with contextlib.aclosing(events):
            try:
                for index in range(request.n or 1):
                    yield completion.chunk(index, {"role": "assistant", "content": ""})
                waiting: tuple[int, Event] | None = first
                while waiting is not None:
                    index, event = waiting
                    completion.add(index, event)
                    if (chunk := completion.chunk_of(index, event)) is not None:
                        yield chunk
                    async with self._in_time(deadline):
                        waiting = await anext(events, None)
            except ApiError as error:
                self._metrics.failed(error.code)
                yield error.body()
                return
        if request.stream_options is not None and request.stream_options.include_usage:
            yield {**completion.head("chat.completion.chunk"), "choices": [], "usage": completion.usage()}

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._limits.answer_seconds

    @contextlib.asynccontextmanager
    async def _in_time(self, deadline: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except TimeoutError:
            raise self._late() from None

    def _late(self) -> ApiError:
        seconds = self._limits.answer_seconds
        return ApiError("deadline_exceeded", f"The answer took more than {seconds:g} seconds: ask for fewer tokens")

    def _failed(self, failure: Failure) -> ApiError:
        return self._late() if failure.is_late else ApiError("generation_failed", failure.message)

    async def _events(
        self, request: ChatRequest, owner: str, deadline: float
    ) -> AsyncGenerator[tuple[int, Event], None]:
        """The events of all choices; leaving early stops the work."""
        choices = request.n or 1
        unfinished = 0
        try:
            async with self._pool.use(request.model, choices) as worker:
                prompt = await self.prompt(request, owner)
                unfinished = choices
                answers = worker.answers(prompt.messages, prompt.settings, self._limits.answer_seconds)
                async with contextlib.aclosing(answers) as events:
                    async for index, event in events:
                        if isinstance(event, Failure):
                            raise self._failed(event)
                        if isinstance(event, Finish):
                            unfinished -= 1
                            self._metrics.answered(request.model, event, prompt.has_image)
                        yield index, event
        except (GeneratorExit, asyncio.CancelledError) as left:
            # Refusals, failures and lateness have counts of their own; the deadline, too, comes as a cancellation.
            is_late = isinstance(left, asyncio.CancelledError) and asyncio.get_running_loop().time() >= deadline
            if unfinished and not is_late:
                self._metrics.cancelled(request.model, unfinished)
            raise

    async def prompt(self, request: ChatRequest, owner: str) -> Prompt:
        """Check a request against the limits and fetch its image.

        Raises:
            ApiError: When it breaks a limit, or its image cannot be had.
        """
        choices = request.n or 1
        if choices > self._limits.choices:
            raise ApiError("invalid_parameter", f"n is at most {self._limits.choices}, not {choices}", "n")
        _check_images(request.messages)
        characters = sum(
            len(part.text) for message in request.messages for part in message.content if part.type == "text"
        )
        if characters > self._limits.prompt_characters:
            raise ApiError(
                "prompt_too_long",
                f"The messages have {characters} characters, the limit is {self._limits.prompt_characters}: "
                f"leave out early turns",
                "messages",
            )
        messages = [
            {
                "role": "system" if message.role in _FIRST_ROLES else message.role,
                "content": [
                    {"type": "text", "text": part.text}
                    if part.type == "text"
                    else {
                        "type": "image",
                        "image": await self._images.read(part, owner, f"messages.{number}.content.{position}"),
                    }
                    for position, part in enumerate(message.content)
                ],
            }
            for number, message in enumerate(request.messages)
        ]
        has_image = any(part.type != "text" for message in request.messages for part in message.content)
        return Prompt(messages, tuple(self._settings(request, index) for index in range(choices)), has_image)

    def _settings(self, request: ChatRequest, index: int) -> SamplingSettings:
        bound = request.max_completion_tokens or request.max_tokens or self._limits.max_new_tokens
        return SamplingSettings(
            max_new_tokens=bound,
            temperature=request.temperature or 0.0,
            top_p=request.top_p or 1.0,
            # Choices of one seed must differ, and be the same ones next time.
            seed=None if request.seed is None else (request.seed + index) % _SEED_BOUND,
            stop=tuple(request.stop or ()),
            top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
            num_latents=request.num_latents,
        )


def _check_images(messages: list[Message]) -> None:
    """The models' own rule, checked before anything is fetched: one image, in the first question."""
    places = [
        (number, position)
        for number, message in enumerate(messages)
        for position, part in enumerate(message.content)
        if part.type != "text"
    ]
    if len(places) > 1:
        raise ApiError(
            "too_many_images",
            f"The request holds {len(places)} images: a conversation is about one; begin another for the next image",
            "messages.{}.content.{}".format(*places[1]),
        )
    first_question = next((number for number, message in enumerate(messages) if message.role == "user"), 0)
    if places and places[0][0] != first_question:
        raise ApiError(
            "unsupported_content",
            f"The image is in message {places[0][0]}: it must be in the first user message ({first_question})",
            "messages.{}.content.{}".format(*places[0]),
        )


@dataclass
class _Choice:
    text: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish: Finish | None = None


class _Completion:
    """Collects the events of one request and writes them down."""

    def __init__(self, request: ChatRequest) -> None:
        self._model = request.model
        self._with_logprobs = bool(request.logprobs)
        self._usage_follows = bool(request.stream_options and request.stream_options.include_usage)
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._choices = [_Choice() for _ in range(request.n or 1)]

    def add(self, index: int, event: Event) -> None:
        choice = self._choices[index]
        if isinstance(event, Piece):
            choice.text.append(event.text)
            choice.logprobs += map(_logprob, event.logprobs)
        elif isinstance(event, Finish):
            choice.finish = event

    def as_json(self) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": "".join(choice.text), "refusal": None},
                "logprobs": {"content": choice.logprobs, "refusal": None} if self._with_logprobs else None,
                "finish_reason": choice.finish.reason if choice.finish else None,
            }
            for index, choice in enumerate(self._choices)
        ]
        return {**self.head("chat.completion"), "choices": choices, "usage": self.usage()}

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def usage(self) -> dict[str, int]:
        finishes = [choice.finish for choice in self._choices if choice.finish is not None]
        prompt = max((finish.prompt_tokens for finish in finishes), default=0)
        answers = sum(finish.answer_tokens for finish in finishes)
        return {"prompt_tokens": prompt, "completion_tokens": answers, "total_tokens": prompt + answers}

    def chunk_of(self, index: int, event: Event) -> dict[str, Any] | None:
        """The chunk that tells an event; None when there is nothing to tell."""
        if isinstance(event, Finish):
            return self.chunk(index, {}, finish_reason=event.reason)
        if isinstance(event, Piece) and (event.text or event.logprobs):
            return self.chunk(index, {"content": event.text}, list(map(_logprob, event.logprobs)))
        return None

    def chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: list[dict[str, Any]] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        told = {"content": logprobs, "refusal": None} if self._with_logprobs and logprobs is not None else None
        choice = {"index": index, "delta": delta, "logprobs": told, "finish_reason": finish_reason}
        usage = {"usage": None} if self._usage_follows else {}
        return {**self.head("chat.completion.chunk"), "choices": [choice], **usage}


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    def entry(text: str, content: bytes, logprob: float) -> dict[str, Any]:
        # JSON has no infinity; OpenAI writes this number for what is out of reach.
        return {"token": text, "bytes": list(content), "logprob": max(logprob, -9999.0)}

    return {
        **entry(token.token, token.token_bytes, token.logprob),
        "top_logprobs": [entry(*alternative) for alternative in token.alternatives],
    }
