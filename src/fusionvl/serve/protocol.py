"""The requests of OpenAI's chat API, as far as this server answers them, checked by pydantic.

What the models cannot do is refused by name; what changes nothing is accepted; what is unknown is refused, because a
misspelt parameter must not be ignored silently. Knows no images' contents and no models.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

_INT64 = 2**63
_STOPS = 4


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class TextPart(_Strict):
    """Text of a message."""

    type: Literal["text"]
    text: str


class ImageUrl(_Strict):
    """Where an image is: a data URI or an http(s) URL."""

    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(_Strict):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class FileReference(_Strict):
    """An uploaded file."""

    file_id: str


class FilePart(_Strict):
    """An uploaded image in a message."""

    type: Literal["file"]
    file: FileReference


Part = Annotated[TextPart | ImagePart | FilePart, Field(discriminator="type")]


class Message(_Strict):
    """One message; content is a list of parts, whichever way it was written."""

    role: Literal["system", "developer", "user", "assistant"]
    content: list[Part] = Field(max_length=64)
    name: str | None = None
    refusal: None = None
    audio: None = None
    tool_calls: None = None
    function_call: None = None
    annotations: Any = None  # what the official client repeats of our answers

    @field_validator("content", mode="before")
    @classmethod
    def _as_parts(cls, content: Any) -> Any:
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    @model_validator(mode="after")
    def _only_users_show_images(self) -> "Message":
        if self.role != "user" and any(part.type != "text" for part in self.content):
            raise PydanticCustomError("unsupported_content", "only user messages may hold images")
        return self


class StreamOptions(_Strict):
    """What a stream tells besides the answer."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ResponseFormat(_Strict):
    """Only plain text."""

    type: str
    json_schema: Any = None


class ChatRequest(_Strict):
    """Body of POST /v1/chat/completions."""

    model: str = Field(max_length=200)
    messages: list[Message] = Field(min_length=1, max_length=512)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-_INT64, lt=_INT64)
    stop: list[str] | None = None
    max_tokens: int | None = Field(None, ge=1, lt=_INT64)
    max_completion_tokens: int | None = Field(None, ge=1, lt=_INT64)
    n: int | None = Field(None, ge=1, lt=_INT64)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    num_latents: int | None = Field(None, ge=0, le=2**16)
    """Ours: latent tokens of each question, a square number."""

    # Accepted, and without effect here.
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    parallel_tool_calls: Any = None

    # Refused unless they ask for what happens anyway.
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    response_format: ResponseFormat | None = None
    audio: Any = None
    modalities: list[Any] | None = None
    logit_bias: Any = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    prediction: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    web_search_options: Any = None

    @field_validator("stop", mode="before")
    @classmethod
    def _stop_as_list(cls, stop: Any) -> Any:
        return [stop] if isinstance(stop, str) else stop

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, stop: list[str] | None) -> list[str] | None:
        if stop is not None and (len(stop) > _STOPS or not all(0 < len(text) <= 256 for text in stop)):
            raise PydanticCustomError(
                "invalid_parameter", f"give at most {_STOPS} texts of 1 to 256 characters each, found {len(stop)}"
            )
        return stop

    @field_validator(
        "tools",
        "tool_choice",
        "functions",
        "function_call",
        "response_format",
        "audio",
        "modalities",
        "logit_bias",
        "presence_penalty",
        "frequency_penalty",
        "prediction",
        "reasoning_effort",
        "verbosity",
        "web_search_options",
    )
    @classmethod
    def _refuse(cls, value: Any, info: ValidationInfo) -> Any:
        harmless = {"tool_choice": ("none", "auto"), "function_call": ("none", "auto"), "modalities": (["text"],)}
        is_plain_text = isinstance(value, ResponseFormat) and value.type == "text"
        if value and not is_plain_text and value not in harmless.get(str(info.field_name), ()):
            raise PydanticCustomError("unsupported_parameter", "these models cannot do that: leave it out")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "ChatRequest":
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("invalid_parameter", "stream_options are for stream: true only")
        if self.top_logprobs is not None and not self.logprobs:
            raise PydanticCustomError("invalid_parameter", "top_logprobs needs logprobs: true")
        bounds = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(bounds) > 1:
            raise PydanticCustomError("invalid_parameter", "max_tokens and max_completion_tokens differ: give one")
        return self
