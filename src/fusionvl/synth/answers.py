"""What language models have to answer, as schemas: one per kind and step, each checked and turned into a row's parts.

Needs pydantic. Knows no prompts and no backend.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from fusionvl.synth.kinds import Kind
from fusionvl.synth.rows import SynthTurn

LETTERS = "ABCD"
SIDES = ("Left image: ", "Right image: ")

Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Prose = Annotated[str, StringConstraints(strip_whitespace=True, min_length=20)]
Letter = Literal["A", "B", "C", "D"]


class Answer(BaseModel):
    """Anything a language model answers; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class Description(Answer):
    """What one picture shows."""

    description: Prose

    def as_text(self) -> str:
        """As a row keeps it: one paragraph."""
        return " ".join(self.description.split())


class TwoDescriptions(Answer):
    """What two similar pictures show."""

    left: Prose
    right: Prose

    @model_validator(mode="after")
    def _differ(self) -> "TwoDescriptions":
        if " ".join(self.left.split()) == " ".join(self.right.split()):
            raise ValueError("left and right are the same")
        return self

    def as_text(self) -> str:
        """As a row keeps it: a paragraph for each, with its side before it."""
        texts = (" ".join(text.split()) for text in (self.left, self.right))
        return "\n".join(side + text for side, text in zip(SIDES, texts, strict=True))


def pictures_of(description: str) -> tuple[str, ...]:
    """The description of each picture: one, or those of the left and the right."""
    lines = description.split("\n")
    if len(lines) == 2 and all(line.startswith(side) for line, side in zip(lines, SIDES, strict=True)):
        return tuple(line.removeprefix(side) for line, side in zip(lines, SIDES, strict=True))
    return (description,)


class Asked(Answer):
    """A question with its answer."""

    question: Line
    answer: Line

    def turn(self) -> SynthTurn:
        """As a row keeps it."""
        return SynthTurn(self.question, self.answer)


class AskedColour(Asked):
    """With the colour that the answer must name."""

    color: Line

    def turn(self) -> SynthTurn:
        """As a row keeps it."""
        return SynthTurn(self.question, self.answer, correct=self.color)


class AskedCount(Asked):
    """With the number that the answer must name."""

    count: Annotated[int, Field(ge=0, le=100)]

    def turn(self) -> SynthTurn:
        """As a row keeps it."""
        return SynthTurn(self.question, self.answer, correct=str(self.count))


class AskedText(Asked):
    """With the words, as they are written in the picture, that the answer rests on."""

    written: Line

    def turn(self) -> SynthTurn:
        """As a row keeps it."""
        return SynthTurn(self.question, self.answer, correct=self.written)


class AskedReasoning(Asked):
    """With the steps that lead to the answer."""

    reasoning: Prose

    def turn(self) -> SynthTurn:
        """As a row keeps it."""
        return SynthTurn(self.question, f"{self.reasoning} So the answer is: {self.answer}", correct=self.answer)


class AskedChoice(Answer):
    """A question with four options, one of them right."""

    question: Line
    options: Annotated[list[Line], Field(min_length=4, max_length=4)]
    correct: Letter

    @model_validator(mode="after")
    def _options_differ(self) -> "AskedChoice":
        if len({option.casefold() for option in self.options}) < len(self.options):
            raise ValueError("two options are the same")
        return self

    def turn(self) -> SynthTurn:
        """As a row keeps it: the question lists the options, the answer is the letter."""
        listed = (f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=True))
        question = "\n".join([self.question, *listed, "Answer with the letter of the right option."])
        return SynthTurn(question, self.correct, options=tuple(self.options), correct=self.correct)


class OneChoice(Answer):
    """A multiple choice."""

    turns: Annotated[list[AskedChoice], Field(min_length=1, max_length=1)]


class Colours(Answer):
    """Questions about colours."""

    turns: Annotated[list[AskedColour], Field(min_length=1, max_length=3)]


class Counts(Answer):
    """Questions about numbers of things."""

    turns: Annotated[list[AskedCount], Field(min_length=1, max_length=3)]


class Writing(Answer):
    """Questions about written text."""

    turns: Annotated[list[AskedText], Field(min_length=1, max_length=3)]


class FewQuestions(Answer):
    """One to three questions."""

    turns: Annotated[list[Asked], Field(min_length=1, max_length=3)]


class Conversation(Answer):
    """Several questions."""

    turns: Annotated[list[Asked], Field(min_length=2, max_length=6)]


class Reasonings(Answer):
    """Questions with reasoned answers."""

    turns: Annotated[list[AskedReasoning], Field(min_length=1, max_length=2)]


DescriptionAnswer = Description | TwoDescriptions
QuestionsAnswer = OneChoice | Colours | Counts | Writing | FewQuestions | Conversation | Reasonings

QUESTIONS: dict[str, type[QuestionsAnswer]] = {
    "SynthColor": Colours,
    "SynthCount": Counts,
    "SynthSpatial": FewQuestions,
    "SynthScene": FewQuestions,
    "SynthText": Writing,
    "MultiChoice": OneChoice,
    "ConvShort": Conversation,
    "ConvLong": Conversation,
    "ContrastShort": FewQuestions,
    "ContrastLong": FewQuestions,
    "Reasoning": Reasonings,
    "TextQA": Writing,
}
"""What is answered when questions of a kind are asked for."""


def description_answer(kind: Kind) -> type[DescriptionAnswer]:
    """What is answered when a description for a kind is asked for."""
    return TwoDescriptions if kind.pictures == 2 else Description


class AnswerError(Exception):
    """An answer that does not fit; says what is wrong with it, for the model to repair and for the row's reason."""


def parse(text: str, answer: type[Answer]) -> Any:
    """An answer from its text, which may have something around the JSON, as models like to add.

    Raises:
        AnswerError: When there is no such JSON in it.
    """
    if not text.strip():
        raise AnswerError("the answer is empty")
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise AnswerError("the answer holds no JSON object")
    try:
        return answer.model_validate(json.loads(text[start : end + 1], strict=False))
    except json.JSONDecodeError as error:
        raise AnswerError(f"the answer is no valid JSON: {error}") from error
    except ValidationError as error:
        raise AnswerError("the answer does not fit: " + "; ".join(map(_told, error.errors()[:3]))) from error


def _told(fault: Any) -> str:
    place = ".".join(map(str, fault["loc"]))
    return f"{place}: {fault['msg']}" if place else str(fault["msg"])
