"""MultiChoice, ConvShort, ConvLong, and ConvQuiz, which is not the paper's: they ask about scenes of any topic."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fusionvl.synth.choices import listed
from fusionvl.synth.kinds.from_scratch import places_by_one
from fusionvl.synth.kinds.kind import Content, Kind
from fusionvl.synth.kinds.scene_question import OPTIONS
from fusionvl.synth.kinds.synth_color import colours
from fusionvl.synth.kinds.synth_count import counts
from fusionvl.synth.kinds.synth_scene import landscapes
from fusionvl.synth.kinds.synth_spatial import places
from fusionvl.synth.kinds.synth_text import writing
from fusionvl.synth.kinds.text_qa import notices
from fusionvl.synth.kinds.topic import Topic
from fusionvl.synth.kinds.written import Asked, Line, Written, conversation
from fusionvl.synth.rows import SynthTurn
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.things import Split

TOPICS: tuple[Topic, ...] = (colours, counts, places, landscapes, writing)


class AskedChoice(Written):
    """A question with four options, one of them right."""

    question: Line
    options: Annotated[list[Line], Field(min_length=len(OPTIONS), max_length=len(OPTIONS))]
    correct: Literal["A", "B", "C", "D"]

    @model_validator(mode="after")
    def _options_differ(self) -> "AskedChoice":
        if len({option.casefold() for option in self.options}) < len(self.options):
            raise ValueError("two options are the same")
        return self

    def turn(self) -> SynthTurn:
        """As a row keeps it: the question lists the options, the answer is the letter."""
        question = f"{self.question}\n{listed(self.options)}\nAnswer with the letter of the right option."
        return SynthTurn(question, self.correct, tuple(self.options), self.correct)


def _multiple_choice(draws: Draws, split: Split) -> Content:
    """One to three questions with four options."""
    while True:
        composed = draws.one_of((*TOPICS, notices))(draws, split)
        fit = [] if composed.purpose is None else [composed.purpose]
        fit += [question for question in composed.questions if len(question.wrong) >= len(OPTIONS) - 1]
        if fit:
            chosen = draws.some_of(fit, min(len(fit), draws.integer(1, 3)))
            return composed.content(question.choice(draws) for question in chosen)


def _short(draws: Draws, split: Split) -> Content:
    """Three or four questions, each answered in a word or phrase."""
    composed = draws.one_of(TOPICS)(draws, split)
    return composed.content(question.short() for question in composed.chosen(draws, draws.integer(3, 4)))


def _long(draws: Draws, split: Split) -> Content:
    """A description, then two or three questions answered in sentences."""
    composed = draws.one_of(TOPICS)(draws, split)
    questions = composed.chosen(draws, draws.integer(2, 3))
    return composed.content([composed.description(draws), *(question.long() for question in questions)])


def _quiz(draws: Draws, split: Split) -> Content:
    """Many questions about one picture, half of the time about places: little is learned from a word or two."""
    composed = draws.one_of((places, places_by_one, colours, counts))(draws, split)
    return composed.content(question.short() for question in composed.chosen(draws, 8))


MULTI_CHOICE = Kind("MultiChoice", _multiple_choice, conversation(AskedChoice, 1, 1))
CONV_SHORT = Kind("ConvShort", _short, conversation(Asked, 2, 6))
CONV_LONG = Kind("ConvLong", _long, conversation(Asked, 2, 6))
CONV_QUIZ = Kind("ConvQuiz", _quiz)
