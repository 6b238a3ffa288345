"""What language models have to write: JSON by a schema, checked and turned into a row's parts.

Each kind's own schema stands with the kind. Fields come in the order in which a model is to write them, so what an
answer rests on comes before it. Knows no prompts and no backend.
"""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, create_model, model_validator

from fusionvl.synth.rows import SynthTurn

SIDES = ("Left image: ", "Right image: ")

Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Prose = Annotated[str, StringConstraints(strip_whitespace=True, min_length=20)]


class Written(BaseModel):
    """Anything a language model writes; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class Description(Written):
    """What one picture shows."""

    description: Prose

    def as_text(self) -> str:
        """As a row keeps it: one paragraph."""
        return _one_line(self.description)


class TwoDescriptions(Written):
    """What two similar pictures show."""

    left: Prose
    right: Prose

    @model_validator(mode="after")
    def _differ(self) -> "TwoDescriptions":
        if _one_line(self.left) == _one_line(self.right):
            raise ValueError("left and right are the same")
        return self

    def as_text(self) -> str:
        """As a row keeps it: a paragraph for each, with its side before it."""
        return side_by_side(_one_line(self.left), _one_line(self.right))


def side_by_side(left: str, right: str) -> str:
    """The descriptions of two pictures as one."""
    return "\n".join(map("".join, zip(SIDES, (left, right), strict=True)))


def pictures_of(description: str) -> tuple[str, ...]:
    """The description of each picture: one, or those of the left and the right."""
    lines = description.split("\n")
    if len(lines) == 2 and all(line.startswith(side) for line, side in zip(lines, SIDES, strict=True)):
        return tuple(line.removeprefix(side) for line, side in zip(lines, SIDES, strict=True))
    return (description,)


def _one_line(text: str) -> str:
    return " ".join(text.split())


class Asked(Written):
    """A question with its answer."""

    question: Line
    answer: Line

    def turn(self) -> SynthTurn:
        """As a row keeps it."""
        return SynthTurn(self.question, self.answer)


class Conversation(Written):
    """Questions with their answers; see `conversation`."""

    turns: list[Any]

    def as_turns(self) -> tuple[SynthTurn, ...]:
        """As a row keeps them."""
        return tuple(asked.turn() for asked in self.turns)


def conversation(asked: type[Written], least: int, most: int) -> type[Conversation]:
    """The schema of so many questions, each with a method `turn`."""
    turns: Any = Annotated[list[asked], Field(min_length=least, max_length=most)]  # type: ignore[valid-type]
    return create_model(f"{asked.__name__}{least}To{most}", __base__=Conversation, turns=turns)


class AnswerError(Exception):
    """A text that does not fit; says what is wrong with it, for the model to repair and for the row's reason."""


def parse(text: str, schema: type[Written]) -> Any:
    """What a model wrote, from its text, which may have something around the JSON, as models like to add.

    Raises:
        AnswerError: When there is no such JSON in it.
    """
    if not text.strip():
        raise AnswerError("the answer is empty")
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise AnswerError("the answer holds no JSON object")
    try:
        return schema.model_validate(json.loads(text[start : end + 1], strict=False))
    except json.JSONDecodeError as error:
        raise AnswerError(f"the answer is no valid JSON: {error}") from error
    except ValidationError as error:
        raise AnswerError("the answer does not fit: " + "; ".join(map(_told, error.errors()[:3]))) from error


def _told(fault: Any) -> str:
    place = ".".join(map(str, fault["loc"]))
    return f"{place}: {fault['msg']}" if place else str(fault["msg"])
