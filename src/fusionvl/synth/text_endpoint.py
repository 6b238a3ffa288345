"""A language model behind OpenAI-compatible endpoints: spreads requests over them, waits, and tries again.

Every request goes to the least busy endpoint that is not resting. An endpoint rests when it says so (429 or 503 with
Retry-After) or cannot be reached. Knows no prompts.
"""

import asyncio
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fusionvl.data.extras import import_extra
from fusionvl.synth.completion import Completion, CompletionError, checked
from fusionvl.synth.recipe import Endpoint
from fusionvl.synth.text import RequestError, TextReply, TextRequest

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0
_HOPELESS = {401: "refuses the key", 403: "forbids the request", 404: "knows no such model or path"}
_BUSY = (429, 503)
_MAY_PASS = (408, 409, 500, 502, 504)
_NO_JSON = (json.JSONDecodeError, UnicodeDecodeError)


@dataclass
class _Server:
    """One endpoint and how it is at the moment.

    Attributes:
        url: Where it is.
        client: Asks it.
        in_flight: Requests that wait for it.
        failures: Requests that failed since it last answered.
        rests: Rests it had since it last answered; many requests may fail for one.
        rests_until: When the last rest ends.
    """

    url: str
    client: Any
    in_flight: int = 0
    failures: int = 0
    rests: int = 0
    rests_until: float = 0.0


@dataclass(frozen=True)
class _Trouble:
    """What kept an endpoint from answering, and what that means."""

    reason: str
    passes: bool
    is_servers: bool
    pause: float | None = None


class EndpointModel:
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
        self._settings = settings
        self._servers = [
            _Server(url, self._openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=settings.timeout))
            for url in settings.base_urls
        ]

    async def complete(self, request: TextRequest) -> TextReply:
        """Answer a request by whichever endpoint can."""
        tried: list[str] = []
        for attempt in range(1, self._settings.retries + 2):
            server = await self._free_server(tried)
            tried.append(server.url)
            server.in_flight += 1
            asked = time.monotonic()
            try:
                answer = await self._ask(server, request)
            finally:
                server.in_flight -= 1
            if isinstance(answer, _Trouble):
                if not answer.passes or attempt > self._settings.retries:
                    raise RequestError(f"{server.url}: {answer.reason}", attempt)
                await self._wait(server, answer, attempt, asked)
                continue
            server.failures = server.rests = 0
            return _reply(answer, self._settings.model, attempt)
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Forget the connections; they end with the run's event loop."""
        self._servers.clear()

    async def _free_server(self, tried: Sequence[str]) -> _Server:
        """The least busy endpoint that does not rest, rather one where this request has not failed; waits if all rest.

        An endpoint that is gone is never busy: without the memory of a request it could use up all its attempts there.
        """
        while True:
            now = time.monotonic()
            awake = [server for server in self._servers if server.rests_until <= now]
            if awake:
                return min(awake, key=lambda server: (tried.count(server.url), server.in_flight, server.failures))
            await asyncio.sleep(min(server.rests_until for server in self._servers) - now)

    async def _ask(self, server: _Server, request: TextRequest) -> Completion | _Trouble:
        """The endpoint's answer, or what kept it from answering.

        Raises:
            ValueError: When it would answer no request at all.
        """
        try:
            # The client's own timeout is of silence; this one also ends an answer that only trickles in.
            async with asyncio.timeout(self._settings.timeout):
                return checked(await server.client.chat.completions.create(**self._arguments(request)))
        except (TimeoutError, self._openai.APITimeoutError):
            return _Trouble(f"no answer within {self._settings.timeout:g} seconds", passes=True, is_servers=True)
        except self._openai.APIConnectionError as error:
            cause = error.__cause__ or error
            return _Trouble(f"connection failed ({type(cause).__name__}: {cause})", passes=True, is_servers=True)
        except self._openai.APIStatusError as error:
            return self._trouble(server, error)
        except (self._openai.APIResponseValidationError, CompletionError, *_NO_JSON) as error:
            return _Trouble(f"the answer is broken ({error})", passes=True, is_servers=False)

    def _arguments(self, request: TextRequest) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": self._settings.model,
            "messages": [{"role": role, "content": text} for role, text in request.messages],
            "seed": request.seed,
            "temperature": self._settings.temperature,
            "max_tokens": self._settings.max_tokens,
        }
        if self._settings.json_schema:
            schema = {"name": request.schema_name, "schema": request.schema, "strict": True}
            arguments["response_format"] = {"type": "json_schema", "json_schema": schema}
        return arguments

    def _trouble(self, server: _Server, error: Any) -> _Trouble:
        status, message = error.status_code, " ".join(str(error.message).split())[:300]
        if status in _HOPELESS:
            raise ValueError(
                f"{server.url} {_HOPELESS[status]}: {message}. Model: {self._settings.model}; the key is "
                f"read from the environment variable {self._settings.api_key_variable}"
            ) from error
        pause = _retry_after(error.response.headers.get("retry-after", ""))
        passes = status in _BUSY or status in _MAY_PASS
        return _Trouble(message, passes=passes, is_servers=status in _BUSY, pause=pause)

    async def _wait(self, server: _Server, trouble: _Trouble, attempt: int, asked: float) -> None:
        """Let the endpoint rest when the trouble is its own; when it is this request's, only the request waits."""
        server.failures += 1
        # All that were in flight when a rest began met the same trouble: one rest for them, not a longer one for each.
        is_new = trouble.is_servers and asked >= server.rests_until
        server.rests += is_new
        tries = max(server.rests, 1) if trouble.is_servers else attempt
        pause = trouble.pause if trouble.pause is not None else _FIRST_PAUSE * 2 ** min(tries - 1, 10)
        pause = min(pause, _LONGEST_PAUSE)
        if is_new or (trouble.is_servers and trouble.pause is not None):
            server.rests_until = max(server.rests_until, time.monotonic() + pause)
        if trouble.is_servers and len(self._servers) > 1:
            pause = 0.0
        # Never all at once: a server that has just come back would be knocked over again.
        await asyncio.sleep(pause + random.uniform(0, _FIRST_PAUSE))


def _retry_after(header: str) -> float | None:
    """Seconds to wait; None when the endpoint does not say, or names a date."""
    try:
        return max(0.0, float(header))
    except ValueError:
        return None


def _reply(answer: Completion, model: str, attempts: int) -> TextReply:
    usage = answer.usage
    return TextReply(
        text=answer.text,
        model=answer.model or model,
        finish_reason=(answer.choices[0].finish_reason or "") if answer.choices else "no choice",
        input_tokens=(usage.prompt_tokens or 0) if usage else 0,
        output_tokens=(usage.completion_tokens or 0) if usage else 0,
        attempts=attempts,
    )
