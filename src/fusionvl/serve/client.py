"""A chat with a server that speaks OpenAI's API, for the terminal: messages in, pieces of an answer out.

The official client speaks; this module turns paths into pictures and every trouble into one sentence. Knows no engine
and no terminal.
"""

import base64
import mimetypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai

from fusionvl.serve.address import server_root

_BROKEN_OFF = "The server broke off in the middle of its answer: ask again"
_ODD = (AttributeError, TypeError, ValueError)  # what the official client makes of answers that are none
_TIMES = openai.Timeout(10.0, read=300.0)  # a first token may wait for a model to be loaded


class RemoteModel:
    """One model of a server.

    Args:
        url: Of the server's root, or of its `/v1`.
        api_key: Where the server asks for one.
        model: Its name there; None is the only one there is.
        max_new_tokens: Bound on each answer.
        num_latents: Latent tokens of each question; None is the model's default.

    Raises:
        ValueError: When the server cannot be reached, refuses, or has no such model, or several and none is named.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        model: str | None = None,
        max_new_tokens: int = 512,
        num_latents: int | None = None,
    ) -> None:
        self._url = f"{server_root(url)}/v1"
        self._client = openai.OpenAI(base_url=self._url, api_key=api_key or "none", timeout=_TIMES, max_retries=0)
        self._settings: dict[str, Any] = {"max_tokens": max_new_tokens}
        if num_latents is not None:  # as vLLM reads it; `fusionvl serve` does, too
            self._settings["extra_body"] = {"chat_template_kwargs": {"num_latents": num_latents}}
        self.name = self._choose(model)

    def __enter__(self) -> "RemoteModel":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def stream(self, messages: list[dict[str, Any]]) -> Iterator[str]:
        """Answer a conversation, piece by piece.

        Args:
            messages: As `FusionEngine.stream` takes them; images are paths.

        Raises:
            ValueError: When the image cannot be read, the server refuses or breaks off; with its own sentence.
        """
        sent: Any = list(map(_as_sent, messages))
        has_begun = is_over = False
        try:
            with self._client.chat.completions.create(
                model=self.name, messages=sent, stream=True, **self._settings
            ) as chunks:
                for chunk in chunks:
                    has_begun = True
                    for choice in chunk.choices:
                        yield choice.delta.content or ""
                        is_over = is_over or choice.finish_reason is not None
        except openai.APIError as error:
            is_cut = has_begun and isinstance(error, openai.APIConnectionError)
            raise ValueError(_BROKEN_OFF if is_cut else self._sentence(error)) from error
        except _ODD as error:
            raise ValueError(self._odd()) from error
        if not is_over:
            raise ValueError(_BROKEN_OFF)

    def _choose(self, model: str | None) -> str:
        try:
            names = [one.id for one in self._client.models.list()]
        except openai.APIError as error:
            raise ValueError(self._sentence(error)) from error
        except _ODD as error:
            raise ValueError(self._odd()) from error
        if not names or not all(names):
            raise ValueError(self._odd())
        if model is None and len(names) != 1:
            raise ValueError(f"The server has the models {', '.join(names)}: choose one with --model")
        if model is not None and model not in names:
            raise ValueError(f"The server has no model {model}, but {', '.join(names)}")
        return model or names[0]

    def _odd(self) -> str:
        return f"{self._url} does not answer as OpenAI's API does"

    def _sentence(self, error: openai.APIError) -> str:
        if isinstance(error, openai.APIConnectionError):
            return f"{self._url} does not answer ({error.__cause__ or error})"
        if isinstance(error, openai.APIStatusError) and not isinstance(error.body, dict):
            return f"The server refused with status {error.status_code}"
        body = error.body if isinstance(error.body, dict) else {}
        return str(body.get("message") or error.message)


def _as_sent(message: dict[str, Any]) -> dict[str, Any]:
    parts = [_image_part(part["image"]) if part["type"] == "image" else part for part in message["content"]]
    return {"role": message["role"], "content": parts}


def _image_part(path: str) -> dict[str, Any]:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    media_type = mimetypes.guess_type(path)[0] or "application/octet-stream"  # the server looks at the bytes
    uri = f"data:{media_type};base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": uri}}
