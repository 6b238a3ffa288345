"""A chat with a server that speaks OpenAI's API, for the terminal: messages in, pieces of an answer out.

Knows the protocol's streaming side; knows no engine and no terminal. The official `openai` client does all of this and
more (examples/client.py); a terminal needs this part only, and httpx is there already.
"""

import base64
import json
import mimetypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

_TIMES = httpx.Timeout(10.0, read=300.0)  # a first token may wait for a model to be loaded


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
        root = url.rstrip("/").removesuffix("/v1")
        if not root.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} is no address of a server: it begins with http:// or https://")
        self._url = f"{root}/v1"
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(headers=headers, timeout=_TIMES)
        self._settings = {"max_tokens": max_new_tokens} | ({"num_latents": num_latents} if num_latents else {})
        self.name = self._choose(model)

    def __enter__(self) -> "RemoteModel":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def stream(self, messages: list[dict[str, Any]]) -> Iterator[str]:
        """Answer a conversation, piece by piece.

        Args:
            messages: As `FusionEngine.stream` takes them; images are paths.

        Raises:
            ValueError: When the image cannot be read, the server refuses or breaks off; with its own sentence.
        """
        body = {"model": self.name, "messages": list(map(_as_sent, messages)), "stream": True, **self._settings}
        try:
            with self._http.stream("POST", f"{self._url}/chat/completions", json=body) as response:
                if response.is_error:
                    response.read()
                    raise ValueError(_refusal(response))
                yield from _pieces(response.iter_lines())
        except httpx.HTTPError as error:
            raise ValueError(self._unreachable(error)) from error

    def _choose(self, model: str | None) -> str:
        try:
            response = self._http.get(f"{self._url}/models")
        except (httpx.InvalidURL, UnicodeError) as error:  # names that DNS cannot have are UnicodeErrors
            # Shown escaped: it may hold what a terminal obeys, or cannot write.
            raise ValueError(f"{self._url!r} is no address of a server: {error}") from error
        except httpx.HTTPError as error:
            raise ValueError(self._unreachable(error)) from error
        if response.is_error:
            raise ValueError(_refusal(response))
        try:
            names = [str(one["id"]) for one in response.json()["data"]]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{self._url} does not answer as OpenAI's API does") from error
        if model is None and len(names) != 1:
            raise ValueError(f"The server has the models {', '.join(names)}: choose one with --model")
        if model is not None and model not in names:
            raise ValueError(f"The server has no model {model}, but {', '.join(names)}")
        return model or names[0]

    def _unreachable(self, error: httpx.HTTPError) -> str:
        return f"{self._url} does not answer ({str(error) or type(error).__name__})"


def _pieces(lines: Iterator[str]) -> Iterator[str]:
    """The texts of a stream of server-sent events.

    Raises:
        ValueError: When it tells an error, or ends before the answer does.
    """
    for line in lines:
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            return
        chunk = json.loads(line.removeprefix("data: "))
        if "error" in chunk:
            raise ValueError(chunk["error"]["message"])
        for choice in chunk["choices"]:
            yield choice["delta"].get("content") or ""
    raise ValueError("The server broke off in the middle of its answer: ask again")


def _refusal(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return f"The server refused with status {response.status_code}"


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
