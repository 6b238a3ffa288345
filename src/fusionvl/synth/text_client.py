"""The one way to ask a language model: messages with text and pictures in, text out.

    client = open_client(Endpoint("Qwen/Qwen3-32B", base_urls))     # or LocalModel(...), or named_model("URL#NAME")
    reply = await client.complete(TextRequest((message("user", "How many cups?", [photo]),)))
    client.close()

Descriptions, questions, the judge, the closed-book and the blind filter all ask through it. A client is used within
one event loop. Whoever tests what asks, gives a class of its own with `complete` and `close`. Knows no prompts, no
rows, and of backends only which settings mean which.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

OPERATIONAL = {"operational": True}
"""Marks a setting that no answer depends on: it may change between two sessions of a run, see `recipe.identity`."""

_MEDIA_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}

Message: TypeAlias = dict[str, Any]
"""A chat message as OpenAI-compatible endpoints take it: `role` and `content`, pictures as data URLs."""


@dataclass
class Price:
    """What a million tokens cost, in US dollars.

    Attributes:
        input: Those that are read.
        output: Those that are written.
    """

    input: float = 0.0
    output: float = 0.0


@dataclass
class Endpoint:
    """A language model behind any OpenAI-compatible endpoint, or behind several that serve the same model.

    Attributes:
        model: Its name, as the endpoint knows it.
        base_urls: For instance `http://node1:8000/v1`.
        api_key_variable: The environment variable that holds the key; without a value, no key is sent.
        temperature: Of sampling.
        max_tokens: Most tokens of an answer.
        json_schema: Whether to ask the endpoint to write by the schema (`response_format`); answers are checked
            either way.
        timeout: Seconds until a request counts as lost.
        retries: How often a request is repeated after a failure that may pass.
        price: Of a million tokens.
        kind: Which backend.
    """

    model: str
    base_urls: list[str] = field(default_factory=lambda: ["https://api.openai.com/v1"], metadata=OPERATIONAL)
    api_key_variable: str = field(default="OPENAI_API_KEY", metadata=OPERATIONAL)
    temperature: float = 0.9
    max_tokens: int = 1024
    json_schema: bool = True
    timeout: float = field(default=120.0, metadata=OPERATIONAL)
    retries: int = field(default=5, metadata=OPERATIONAL)
    price: Price = field(default_factory=Price, metadata=OPERATIONAL)
    kind: Literal["endpoint"] = "endpoint"


@dataclass
class LocalModel:
    """A language model that transformers runs, one that sees pictures or not; one process per device.

    Attributes:
        model: Hub name, folder, or `package:NAME` for the folder of a Python package.
        gguf_file: Name of a GGUF file in it to take model and tokenizer from.
        temperature: Of sampling; 0 takes the likeliest token.
        max_tokens: Most tokens of an answer.
        json_schema: Whether the model can write nothing but what fits the schema (needs llguidance); answers are
            checked either way.
        dtype: What to compute in; `auto` for what the weights are kept in.
        devices: `cpu`, `cuda:0`, ...; `auto` for every GPU of the machine, or else its CPU.
        batch_size: Most requests of a forward pass.
        kind: Which backend.
    """

    model: str
    gguf_file: str | None = None
    temperature: float = 0.9
    max_tokens: int = 1024
    json_schema: bool = True
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    devices: list[str] = field(default_factory=lambda: ["auto"], metadata=OPERATIONAL)
    batch_size: int = field(default=1, metadata=OPERATIONAL)
    kind: Literal["local"] = "local"


LanguageModel: TypeAlias = Endpoint | LocalModel
"""The settings of a language model."""


@dataclass(frozen=True, slots=True)
class TextRequest:
    """One request.

    Attributes:
        messages: The conversation, to be gone on with.
        seed: Of sampling.
        schema: The JSON schema of the answer, None for free text. A model that cannot be kept to it leaves it aside.
        schema_name: Names the schema.
    """

    messages: tuple[Message, ...]
    seed: int = 0
    schema: dict[str, Any] | None = None
    schema_name: str = ""


@dataclass(frozen=True, slots=True)
class TextReply:
    """One answer.

    Attributes:
        text: As written; empty when there was none.
        model: What wrote it.
        finish_reason: Why it ended: `stop`, `length`, or whatever the backend says.
        input_tokens: How many were read.
        output_tokens: How many were written.
        attempts: How often it had to be asked for.
    """

    text: str
    model: str = ""
    finish_reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    attempts: int = 1


class RequestError(Exception):
    """A request got no answer; others may still get one.

    Args:
        reason: Why, in one sentence.
        attempts: How often it was tried.
    """

    def __init__(self, reason: str, attempts: int = 1) -> None:
        super().__init__(reason)
        self.attempts = attempts


class TextClient(Protocol):
    """Anything that answers requests, many at a time."""

    async def complete(self, request: TextRequest) -> TextReply:
        """Answer a request.

        Raises:
            RequestError: When this request got no answer.
            ValueError: When no request would: a wrong key, an unknown model.
        """

    def close(self) -> None:
        """Give back connections and processes."""


def open_client(settings: LanguageModel) -> TextClient:
    """Begin to ask a model; a local one is loaded once per device, however many clients of it are open.

    Raises:
        ValueError: When an endpoint has no address.
        ModuleNotFoundError: When openai is not installed and an endpoint is to be asked; says how to install it.
    """
    from fusionvl.synth.text_endpoint import EndpointClient
    from fusionvl.synth.text_local import LocalClient

    return EndpointClient(settings) if isinstance(settings, Endpoint) else LocalClient(settings)


def named_model(name: str, *, max_tokens: int, temperature: float = 0.0) -> LanguageModel:
    """The settings of a model as a command line names it.

    Args:
        name: `URL#NAME` for an endpoint; else a hub name, a folder, `package:NAME`, or one of these with `/FILE.gguf`.
        max_tokens: Most tokens of an answer.
        temperature: Of sampling.

    Raises:
        ValueError: When an endpoint is given without a model's name.
    """
    if name.startswith(("http://", "https://")):
        url, _, model = name.partition("#")
        if not model:
            raise ValueError(f"{name}: name the endpoint's model too, as {name}#MODEL")
        return Endpoint(model, [url], temperature=temperature, max_tokens=max_tokens)
    folder, _, file = name.rpartition("/")
    model, gguf = (folder, file) if file.endswith(".gguf") else (name, None)
    return LocalModel(model, gguf_file=gguf, temperature=temperature, max_tokens=max_tokens, dtype="auto")


def message(role: str, text: str, pictures: Sequence[Path] = ()) -> Message:
    """What someone says, with pictures before the text.

    Raises:
        ValueError: When a picture's ending names no known kind of image.
        OSError: When a picture cannot be read.
    """
    if not pictures:
        return {"role": role, "content": text}
    parts = [{"type": "image_url", "image_url": {"url": _data_url(path)}} for path in pictures]
    return {"role": role, "content": [*parts, {"type": "text", "text": text}]}


def _data_url(path: Path) -> str:
    media_type = _MEDIA_TYPES.get(path.suffix.lower())
    if media_type is None:
        raise ValueError(f"{path}: a picture for a language model ends in {', '.join(_MEDIA_TYPES)}")
    return f"data:{media_type};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
