"""The requests of OpenAI's chat API, as far as this server answers them, checked by pydantic.

What the models cannot do is refused by name; what changes nothing is accepted; what is unknown is refused, because a
misspelt parameter must not be ignored silently. The first thing wrong ends the look at a request, so that a hostile
one costs no more than a good one. Knows no images' contents and no models.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError, from_json

from fusionvl.serve.errors import STATUS_OF_CODE, ApiError

MAX_CHOICES = 8
_INT64 = 2**63
_STOPS = 4

_WITHOUT_EFFECT = frozenset((
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "parallel_tool_calls",
))  # fmt: skip
_CANNOT = frozenset((
    "tools", "tool_choice", "functions", "function_call", "response_format", "audio", "modalities", "logit_bias",
    "presence_penalty", "frequency_penalty", "prediction", "reasoning_effort", "verbosity", "web_search_options",
))  # fmt: skip
# Values that ask for what happens anyway, besides null and empty ones.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
_CODE_OF_VALIDATION = {
    "missing": "missing_parameter",
    "union_tag_invalid": "unsupported_content",
    "union_tag_not_found": "unsupported_content",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _known_names_only(cls, given: Any) -> Any:
        """Ends at the first unknown name; pydantic alone would write a complaint about each of them."""
        unknown = (name for name in given if name not in cls.model_fields) if isinstance(given, dict) else iter(())
        if (name := next(unknown, None)) is not None:
            raise PydanticCustomError("unknown_parameter", "unknown", {"name": name})
        return given


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


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(_Strict):
    """One message; content is a list of parts, whichever way it was written."""

    role: Literal["system", "developer", "user", "assistant"]
    content: list[Part] = Field(max_length=64, fail_fast=True)
    name: str | None = None
    # What the official client repeats of our answers.
    refusal: None = None
    audio: None = None
    tool_calls: None = None
    function_call: None = None
    annotations: Any = None

    @field_validator("content", mode="before")
    @classmethod
    def _as_parts(cls, content: Any) -> Any:
        return [{"type": "text", "text": content}] if isinstance(content, str) else content


class StreamOptions(_Strict):
    """What a stream tells besides the answer."""

    include_usage: bool = False
    include_obfuscation: bool = False


class TemplateOptions(_Strict):
    """As vLLM takes them; `num_latents` of the request itself means the same."""

    num_latents: int | None = Field(default=None, ge=0, le=2**16)


class ChatRequest(_Strict):
    """Body of POST /v1/chat/completions."""

    model: str = Field(max_length=200)
    messages: list[Message] = Field(min_length=1, max_length=512, fail_fast=True)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    temperature: float = Field(0.0, ge=0, le=2, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-_INT64, lt=_INT64)
    stop: list[str] = []
    max_tokens: int | None = Field(None, ge=1, lt=_INT64)
    max_completion_tokens: int | None = Field(None, ge=1, lt=_INT64)
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=20)
    num_latents: int | None = Field(None, ge=0, le=2**16)
    """Ours: latent tokens of each question, a square number."""
    chat_template_kwargs: TemplateOptions = TemplateOptions()

    @model_validator(mode="before")
    @classmethod
    def _only_what_can_be_done(cls, given: Any) -> Any:
        """A parameter that is null is not given."""
        if not isinstance(given, dict):
            return given
        for name in sorted(_CANNOT & given.keys()):
            if given[name] and given[name] not in _HARMLESS.get(name, ()):
                raise PydanticCustomError(
                    "unsupported_parameter", "these models cannot do that: leave it out", {"name": name}
                )
        left_out = _WITHOUT_EFFECT | _CANNOT | {name for name in cls.model_fields if given.get(name) is None}
        return {name: value for name, value in given.items() if name not in left_out}

    @field_validator("stop", mode="before")
    @classmethod
    def _stop_as_list(cls, stop: Any) -> Any:
        return [stop] if isinstance(stop, str) else stop

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, stop: list[str]) -> list[str]:
        if len(stop) > _STOPS or not all(0 < len(text) <= 256 for text in stop):
            raise PydanticCustomError(
                "invalid_parameter", f"give at most {_STOPS} texts of 1 to 256 characters each, found {len(stop)}"
            )
        return stop

    @model_validator(mode="after")
    def _fits_together(self) -> "ChatRequest":
        if "stream_options" in self.model_fields_set and not self.stream:
            raise PydanticCustomError("invalid_parameter", "stream_options are for stream: true only")
        if "top_logprobs" in self.model_fields_set and not self.logprobs:
            raise PydanticCustomError("invalid_parameter", "top_logprobs needs logprobs: true")
        if len({self.max_tokens, self.max_completion_tokens} - {None}) > 1:
            raise PydanticCustomError("invalid_parameter", "max_tokens and max_completion_tokens differ: give one")
        if len({self.num_latents, self.chat_template_kwargs.num_latents} - {None}) > 1:
            raise PydanticCustomError("invalid_parameter", "num_latents stands there twice, and differs: give one")
        return self

    @property
    def latents(self) -> int | None:
        """`num_latents`, whichever way it was written."""
        return self.chat_template_kwargs.num_latents if self.num_latents is None else self.num_latents

    @property
    def max_new_tokens(self) -> int | None:
        """The bound on each answer, whichever way it was written."""
        return self.max_completion_tokens or self.max_tokens


def parse(body: bytes) -> ChatRequest:
    """Read a request.

    Raises:
        ApiError: When it is no JSON, or not what this server answers; with the place of the first thing wrong.
    """
    try:
        given = from_json(body)
    except ValueError as error:
        raise ApiError("invalid_json", f"The body is no valid JSON: {error}") from error
    try:
        return ChatRequest.model_validate(given)
    except ValidationError as error:
        raise refusal(error) from error


def refusal(error: ValidationError) -> ApiError:
    """The first of pydantic's complaints as an error with a code, a place and a sentence.

    Args:
        error: A parameter's name that the place does not tell is its context's `name`.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    code = _CODE_OF_VALIDATION.get(first["type"], first["type"])
    if code not in STATUS_OF_CODE:
        code = "invalid_parameter"
    place = list(first["loc"])
    if place[2:3] == ["content"]:
        del place[4:5]  # messages.0.content.0.TYPE: which part of the union it is, which the request does not say so
    place += [name] if (name := first.get("ctx", {}).get("name")) is not None else []
    param = ".".join(map(str, place))[:200] or None
    sentences = {
        "missing_parameter": f"{param} is missing",
        "unknown_parameter": f"{param} is not a parameter of this endpoint: leave it out, or check its spelling",
    }
    return ApiError(code, sentences.get(code, f"{param or 'The body'}: {first['msg']}"), param)
