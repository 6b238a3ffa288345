"""A chat request -> conversation and settings -> the model's turn -> an answer in one piece, or in chunks.

Knows the protocol, the line before the model and the engine's events; knows no HTTP.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

from fusionvl.engine.events import SamplingSettings
from fusionvl.serve.chat_completion import ChatCompletion
from fusionvl.serve.errors import ApiError
from fusionvl.serve.images import ImageReader
from fusionvl.serve.protocol import ChatRequest, ImagePart, Message, TextPart
from fusionvl.serve.settings import Limits
from fusionvl.serve.waiting_line import WaitingLine, Work

_SYSTEM = ("system", "developer")

Conversation = list[dict[str, Any]]
Ask = Callable[[Any, Conversation], Work]
"""Asks the model about a conversation; it answers while what comes back is iterated over."""


class Chat:
    """Answers chat requests.

    Args:
        model: Its name in requests.
        line: Before the model.
        images: Finds bytes and pixels of images.
        limits: Of requests.
    """

    def __init__(self, model: str, line: WaitingLine, images: ImageReader, limits: Limits) -> None:
        self._model = model
        self._line = line
        self._images = images
        self._limits = limits

    async def complete(self, request: ChatRequest) -> dict[str, Any]:
        """Answer in one piece.

        Raises:
            ApiError: When the request is refused, too slow, or the model fails.
        """
        completion = ChatCompletion(request)
        async with contextlib.aclosing(self._answers(request)) as events:
            async for event in events:
                completion.add(event)
        return completion.as_json()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[dict[str, Any], None]:
        """Answer in chunks; closing the generator stops the work.

        Raises:
            ApiError: As `complete`; before the first chunk when the request is refused.
        """
        completion = ChatCompletion(request)
        async with contextlib.aclosing(self._answers(request)) as events:
            async for event in events:
                for chunk in completion.add(event):
                    yield chunk
        if request.stream_options.include_usage:
            yield completion.last_chunk()

    async def explain(self, request: ChatRequest) -> dict[str, Any]:
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
        bound = request.max_new_tokens or self._limits.max_new_tokens

        def ask(engine: Any, messages: Conversation) -> Work:
            from fusionvl.engine.explain import explain

            parts = {part["type"]: part[part["type"]] for part in messages[0]["content"]}
            found = explain(engine, parts["image"], parts["text"], num_latents=request.latents, max_new_tokens=bound)
            yield found.to_dict()

        async with contextlib.aclosing(self._in_time(request, ask)) as events:
            return dict(await anext(events))

    def _answers(self, request: ChatRequest) -> AsyncGenerator[Any, None]:
        settings = SamplingSettings(
            max_new_tokens=request.max_new_tokens or self._limits.max_new_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=tuple(request.stop),
            top_logprobs=request.top_logprobs if request.logprobs else None,
            num_latents=request.latents,
            n=request.n,
        )
        return self._in_time(request, lambda engine, messages: engine.events(messages, settings))

    async def _in_time(self, request: ChatRequest, ask: Ask) -> AsyncGenerator[Any, None]:
        """What the model tells within the time of an answer, waiting included; closing it stops the work."""
        seconds = self._limits.answer_seconds
        deadline = asyncio.get_running_loop().time() + seconds
        async with contextlib.aclosing(self._events(request, ask)) as events:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        event = await anext(events)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    message = f"The answer took more than {seconds:g} seconds: ask for fewer tokens"
                    raise ApiError("deadline_exceeded", message) from None
                yield event

    async def _events(self, request: ChatRequest, ask: Ask) -> AsyncGenerator[Any, None]:
        """What the model tells when it is asked about the request's conversation."""
        image_at = self._checked(request)
        # Before the request takes a place in the line: slow sites must not fill it.
        content = await self._images.read(*image_at) if image_at else None

        def prepare(engine: Any) -> Work:
            image = self._images.pixels(content, image_at[1]) if content and image_at else None
            return ask(engine, [_as_engine_takes_it(message, image) for message in request.messages])

        threads = self._images.threads if image_at else None
        async with contextlib.aclosing(self._line.events(request.n, prepare, threads)) as events:
            async for event in events:
                yield event

    def _checked(self, request: ChatRequest) -> tuple[str, str] | None:
        """Refuse what breaks a limit before anything is fetched; the URL of the image and where it stands, if any."""
        if request.model != self._model:
            raise ApiError("model_not_found", f"There is no model {request.model[:100]!r}: GET /v1/models", "model")
        texts = [part.text for message in request.messages for part in message.content if isinstance(part, TextPart)]
        characters, bound = sum(map(len, texts)), self._limits.prompt_characters
        if characters > bound:
            message = f"The messages have {characters} characters, the limit is {bound}: leave out early turns"
            raise ApiError("prompt_too_long", message, "messages")
        return _image_of(request.messages)


def _image_of(messages: list[Message]) -> tuple[str, str] | None:
    """The models' own rule: one image, in the first question."""
    found = [
        (number, f"messages.{number}.content.{position}", part.image_url.url)
        for number, message in enumerate(messages)
        for position, part in enumerate(message.content)
        if isinstance(part, ImagePart)
    ]
    if len(found) > 1:
        sentence = "a conversation is about one; begin another for the next image"
        raise ApiError("too_many_images", f"The request holds {len(found)} images: {sentence}", found[1][1])
    if not found:
        return None
    ((number, param, url),) = found
    question = next((number for number, message in enumerate(messages) if message.role == "user"), None)
    if number != question:
        sentence = f"The image is in message {number}: it must be in the first user message"
        raise ApiError("unsupported_content", sentence, param)
    return url, f"{param}.image_url.url"


def _as_engine_takes_it(message: Message, image: Any) -> dict[str, Any]:
    parts = [
        {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image", "image": image}
        for part in message.content
    ]
    return {"role": "system" if message.role in _SYSTEM else message.role, "content": parts}
