"""What is used of an endpoint's answer, checked: the client library takes any body for one, a page of HTML included.

Knows no request and no retries. Needs pydantic.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

_SHOWN = 80


class CompletionError(Exception):
    """An endpoint sent something else than an answer; says what in one sentence."""


class _Part(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class _Message(_Part):
    content: str | None = None


class _Choice(_Part):
    message: _Message
    finish_reason: str | None = None


class _Usage(_Part):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(_Part):
    """A chat completion. It may hold no choice, or one without text: that is an answer, if an empty one."""

    choices: list[_Choice]
    model: str | None = None
    usage: _Usage | None = None

    @property
    def text(self) -> str:
        """What the first choice says; empty when it says nothing."""
        return (self.choices[0].message.content or "") if self.choices else ""


def checked(answer: Any) -> Completion:
    """What the client library returned, as a chat completion.

    Raises:
        CompletionError: When it is none.
    """
    try:
        return Completion.model_validate(answer)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        what = f"{place}: {fault['msg']}" if place else repr(answer)[:_SHOWN]
        raise CompletionError(f"no chat completion: {what}") from error
