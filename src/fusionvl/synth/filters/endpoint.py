"""A model behind an OpenAI-compatible endpoint, for filters: `complete(messages)`, images in the messages or none.

Retries are the client library's, but for answers that are broken. Knows no rows and no filter. Needs openai.
"""

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from fusionvl.data.extras import import_extra
from fusionvl.synth.completion import CompletionError, checked
from fusionvl.synth.filters.asking import Message, ModelError

_FIRST_PAUSE = 0.5


class Endpoint:
    """Asks one model at one address.

    Args:
        base_url: As `http://host:8000/v1`.
        model: Its name there.
        timeout: Seconds for one try.
        retries: Further tries after a lost connection, a timeout, 408, 409, 429, 5xx or a broken answer.
        max_tokens: Of an answer.

    Raises:
        ModuleNotFoundError: If openai is not installed; says how to install it.
    """

    def __init__(
        self, base_url: str, model: str, *, timeout: float = 60, retries: int = 4, max_tokens: int = 64
    ) -> None:
        self._openai: Any = import_extra("openai", extra="synth", needed_for="asking an endpoint")
        key = os.environ.get("OPENAI_API_KEY", "none")  # servers of one's own ask for none
        self._client = self._openai.AsyncOpenAI(base_url=base_url, api_key=key, timeout=timeout, max_retries=retries)
        self._where = f"{base_url} ({model})"
        self._model = model
        self._retries = retries
        self._max_tokens = max_tokens

    async def complete(self, messages: Sequence[Message]) -> str:
        """Answers a conversation, at temperature 0.

        Raises:
            ModelError: If this request is refused, fails after all retries, or brings no text.
            ValueError: If every request would be refused: wrong key, wrong address, no such model.
        """
        for attempt in range(self._retries + 1):
            try:
                text = await self._ask(messages)
            except CompletionError as error:
                if attempt == self._retries:
                    raise ModelError(f"{self._where}: the answer is broken ({error})") from error
                await asyncio.sleep(_FIRST_PAUSE * 2**attempt)
                continue
            if not text:
                raise ModelError(f"{self._where}: a reply without text")
            return text
        raise AssertionError("the last attempt returns or raises")

    async def _ask(self, messages: Sequence[Message]) -> str:
        errors = self._openai
        try:
            reply = await self._client.chat.completions.create(
                model=self._model, messages=list(messages), temperature=0, max_tokens=self._max_tokens
            )
            return checked(reply).text
        except (errors.AuthenticationError, errors.PermissionDeniedError, errors.NotFoundError) as error:
            raise ValueError(f"{self._where} refuses all requests: {error}") from error
        except errors.OpenAIError as error:
            raise ModelError(f"{self._where}: {error}") from error
        except ValueError as error:  # a body that is no JSON
            raise CompletionError(str(error)) from error
