"""A language model behind OpenAI-compatible endpoints: each request goes to the least busy one.

The official client repeats what may pass and waits as long as an endpoint asks it to. An endpoint that still fails
rests for a while; its requests go to the others. Answers are checked, since the client takes any body for one, a page
of HTML included. Knows no prompts. Needs openai and pydantic.
"""

import asyncio
import os
import time
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from fusionvl.data.extras import import_extra
from fusionvl.synth.text_client import Endpoint, RequestError, TextReply, TextRequest

_REST = 30.0
_LONGEST_WAIT = 120.0  # of the client library, before one repetition
_FIRST_PAUSE = 0.5
_SHOWN = 80
_HOPELESS = {401: "refuses the key", 403: "forbids the request", 404: "knows no such model or path"}
_MAY_PASS = (408, 409, 429)


@dataclass
class _Server:
    """One endpoint and how it is at the moment.

    Attributes:
        url: Where it is.
        client: Asks it.
        in_flight: Requests that wait for it.
        has_failed: Whether it has not answered since it last failed.
        rests_until: When it is to be tried again.
    """

    url: str
    client: Any
    in_flight: int = 0
    has_failed: bool = False
    rests_until: float = 0.0

    def eagerness(self) -> tuple[bool, int]:
        """The less, the sooner it is asked. One request finds out whether an endpoint that failed is back."""
        is_doubtful = time.monotonic() < self.rests_until or (self.has_failed and self.in_flight > 0)
        return is_doubtful, self.in_flight

    def rest(self) -> None:
        """Leave it alone for a while."""
        self.has_failed, self.rests_until = True, time.monotonic() + _REST


class _ServerError(Exception):
    """An endpoint could not answer, however often it was asked; another one may."""


class _BrokenError(Exception):
    """An endpoint sent something else than an answer."""


class EndpointClient:
    """A language model behind endpoints.

    Args:
        settings: Which model, where, and how long to wait.

    Raises:
        ValueError: When there is no endpoint.
        ModuleNotFoundError: When openai is not installed; says how to install it.
    """

    def __init__(self, settings: Endpoint) -> None:
        if not settings.base_urls:
            raise ValueError(f"{settings.model}: base_urls names no endpoint")
        self._openai = import_extra("openai", extra="synth", needed_for="Asking a language model over HTTP")
        key = os.environ.get(settings.api_key_variable) or "none"  # what local servers expect is anything at all
        choices = {"api_key": key, "max_retries": settings.retries, "timeout": settings.timeout}
        self._settings = settings
        self._servers = [_Server(url, self._openai.AsyncOpenAI(base_url=url, **choices)) for url in settings.base_urls]

    async def complete(self, request: TextRequest) -> TextReply:
        """Answer a request by whichever endpoint can; see `TextClient`."""
        untried, attempts, broken = list(self._servers), 0, 0
        while True:
            server = min(untried, key=_Server.eagerness)
            try:
                answer, tries = await self._ask(server, request)
            except _BrokenError as error:
                attempts, broken = attempts + 1, broken + 1
                if broken > self._settings.retries:
                    raise RequestError(f"{server.url}: the answer is broken ({error})", attempts) from error
                await asyncio.sleep(min(_FIRST_PAUSE * 2 ** (broken - 1), _LONGEST_WAIT))
            except _ServerError as error:
                attempts += self._settings.retries + 1
                server.rest()
                untried.remove(server)
                if not untried:
                    raise RequestError(f"{server.url}: {error}", attempts) from error
            else:
                server.has_failed = False
                return _reply(answer, self._settings.model, attempts + tries)

    def close(self) -> None:
        """Forget the connections; they end with the event loop."""
        self._servers.clear()

    async def _ask(self, server: _Server, request: TextRequest) -> tuple["_Completion", int]:
        """The endpoint's answer, and how often it was asked.

        Raises:
            _BrokenError: When it is none.
            _ServerError: When there is none.
            RequestError: When it refuses this request.
            ValueError: When it would answer no request at all.
        """
        openai, timeout = self._openai, self._settings.timeout
        server.in_flight += 1
        try:
            # The client's own timeout is of silence; this one also ends an answer that only trickles in.
            async with asyncio.timeout((timeout + _LONGEST_WAIT) * (self._settings.retries + 1)):
                create = server.client.chat.completions.with_raw_response.create
                answer = await create(**self._arguments(request))
        except (TimeoutError, openai.APITimeoutError) as error:
            raise _ServerError(f"no answer within {timeout:g} seconds") from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise _ServerError(f"connection failed ({type(cause).__name__}: {cause})") from error
        except openai.APIStatusError as error:
            raise self._refusal(server, error) from error
        finally:
            server.in_flight -= 1
        return _checked(answer.content), answer.retries_taken + 1

    def _arguments(self, request: TextRequest) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": self._settings.model,
            "messages": list(request.messages),
            "seed": request.seed,
            "temperature": self._settings.temperature,
            "max_tokens": self._settings.max_tokens,
        }
        if self._settings.json_schema and request.schema is not None:
            schema = {"name": request.schema_name, "schema": request.schema, "strict": True}
            arguments["response_format"] = {"type": "json_schema", "json_schema": schema}
        return arguments

    def _refusal(self, server: _Server, error: Any) -> Exception:
        """What an answer with a status of failure means."""
        status, told = error.status_code, " ".join(str(error.message).split())[:300]
        if status in _HOPELESS:
            return ValueError(
                f"{server.url} {_HOPELESS[status]}: {told}. Model: {self._settings.model}; the key is read from the "
                f"environment variable {self._settings.api_key_variable}"
            )
        if status in _MAY_PASS or status >= 500:
            return _ServerError(told)
        return RequestError(f"{server.url}: {told}")


class _Said(BaseModel):
    content: str | None = None


class _SaidChoice(BaseModel):
    message: _Said
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    """What is used of a chat completion. It may hold no choice, or one without text: that is an empty answer."""

    choices: list[_SaidChoice]
    model: str | None = None
    usage: _Usage | None = None


def _checked(body: bytes) -> _Completion:
    try:
        return _Completion.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        shown = body[:_SHOWN].decode(errors="replace")
        raise _BrokenError(f"no chat completion: {place + ': ' if place else ''}{fault['msg']}: {shown!r}") from error


def _reply(answer: _Completion, model: str, attempts: int) -> TextReply:
    usage = answer.usage or _Usage()
    first = answer.choices[0] if answer.choices else None
    return TextReply(
        text=(first.message.content or "") if first else "",
        model=answer.model or model,
        finish_reason=(first.finish_reason or "") if first else "no choice",
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
        attempts=attempts,
    )
