"""A model behind an OpenAI-compatible endpoint, for filters: `complete(messages)`, images in the messages or none.

Retries are the client library's. Knows no rows and no filter. Needs openai.
"""

import os
from collections.abc import Sequence
from typing import Any

from fusionvl.data.extras import import_extra
from fusionvl.synth.filters.asking import Message, ModelError


class Endpoint:
    """Asks one model at one address.

    Args:
        base_url: As `http://host:8000/v1`.
        model: Its name there.
        timeout: Seconds for one try.
        retries: Further tries after a lost connection, a timeout, 408, 409, 429 or 5xx.
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
        self._max_tokens = max_tokens

    async def complete(self, messages: Sequence[Message]) -> str:
        """Answers a conversation, at temperature 0.

        Raises:
            ModelError: If this request is refused, fails after all retries, or brings no text.
            ValueError: If every request would be refused: wrong key, wrong address, no such model.
        """
        errors = self._openai
        try:
            reply = await self._client.chat.completions.create(
                model=self._model, messages=list(messages), temperature=0, max_tokens=self._max_tokens
            )
        except (errors.AuthenticationError, errors.PermissionDeniedError, errors.NotFoundError) as error:
            raise ValueError(f"{self._where} refuses all requests: {error}") from error
        except (errors.OpenAIError, ValueError) as error:  # ValueError: a body that is no JSON
            raise ModelError(f"{self._where}: {error}") from error
        choices = getattr(reply, "choices", None)
        text = choices[0].message.content if choices else None
        if not text:
            raise ModelError(f"{self._where}: a reply without text")
        return str(text)
