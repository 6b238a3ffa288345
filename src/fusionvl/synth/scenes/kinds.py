"""The paper's twelve kinds of samples and our own: which scene each shows, and which of its questions it asks how.

Knows no pixels.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fusionvl.data import Turn
from fusionvl.synth.scenes import compositions, layouts
from fusionvl.synth.scenes.attributes import COLOUR, SHAPE, Attribute
from fusionvl.synth.scenes.combinations import Split
from fusionvl.synth.scenes.contrast import contrasting
from fusionvl.synth.scenes.descriptions import REQUESTS, describe
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.questions import contrast, reasoning
from fusionvl.synth.scenes.questions.colour import colour_questions
from fusionvl.synth.scenes.questions.count import count_questions, how_many
from fusionvl.synth.scenes.questions.notices import NOTICES
from fusionvl.synth.scenes.questions.question import Question, drawn
from fusionvl.synth.scenes.questions.scene import scene_questions
from fusionvl.synth.scenes.questions.spatial import (
    Naming,
    by_one,
    direction_questions,
    overlap_questions,
    spatial_questions,
    where_questions,
)
from fusionvl.synth.scenes.questions.text import text_questions
from fusionvl.synth.scenes.sampling import draw_background
from fusionvl.synth.scenes.scene_graph import Picture, Scene
from fusionvl.synth.scenes.scenery import draw_scenery

# The wording of LLaVA's data and of most benchmarks.
SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
_LETTERS = "ABCD"
_MOST_TURNS = 4
_MANY_TURNS = 8
_OVERLAPPING = 0.25  # share of the spatial scenes
_SHAPES = 2 / 3  # share of the layouts that are told by shape; colours are learned sooner


class Content(NamedTuple):
    """What a sample shows and says."""

    picture: Picture
    turns: tuple[Turn, ...]


class _Asked(NamedTuple):
    """A scene with what can be asked about it; the first question is the one it was composed for, if any."""

    scene: Scene
    questions: list[Question]
    purpose: Question | None = None


def _colours(draws: Draws, split: Split) -> _Asked:
    scene = compositions.a_few_things(draws, split)
    return _Asked(scene, colour_questions(scene, draws, split))


def _counts(draws: Draws, split: Split) -> _Asked:
    scene, (shape, colour) = compositions.groups(draws, split, draws.integer(0, compositions.MAX_COUNT))
    count = sum((thing.shape, thing.colour) == (shape, colour) for thing in scene.things)
    return _Asked(scene, count_questions(scene, draws), how_many(draws, f"{colour} {shape}", count))


def _places(draws: Draws, split: Split) -> _Asked:
    if draws.chance(_OVERLAPPING):
        scene = compositions.overlapping(draws, split)
        return _Asked(scene, overlap_questions(scene, draws))
    scene = compositions.in_rows(draws, split)
    return _Asked(scene, spatial_questions(scene, draws))


def _by_one_attribute(
    questions_of: Callable[[Scene, Draws, Naming], list[Question]],
) -> Callable[[Draws, Split], _Asked]:
    """Things by their shape or by their colour alone: who hears of both learns which shapes are red."""

    def ask(draws: Draws, split: Split) -> _Asked:
        while True:
            scene = compositions.in_rows(draws, split)
            questions = questions_of(scene, draws, by_one(_attribute(draws)))
            if questions:
                return _Asked(scene, questions)

    return ask


def _landscapes(draws: Draws, split: Split) -> _Asked:
    scene = draw_scenery(draws, split)
    return _Asked(scene, scene_questions(scene, draws))


def _writing(draws: Draws, split: Split) -> _Asked:
    scene, alike = compositions.a_few_signs(draws, split)
    return _Asked(scene, text_questions(scene, draws, alike))


def _notices(draws: Draws, split: Split) -> _Asked:
    scene, questions = draws.one_of(NOTICES)(draws, split, draw_background(draws))
    return _Asked(scene, questions)


_TOPICS = (_colours, _counts, _places, _landscapes, _writing)


def _aligned(topic: Callable[[Draws, Split], _Asked]) -> Callable[[Draws, Split], Content]:
    """A kind for alignment: a description half of the time, then questions, half of them answered in a sentence."""

    def make(draws: Draws, split: Split) -> Content:
        asked = topic(draws, split)
        turns = [_description(asked.scene, draws)] if draws.chance(0.5) else []
        for question in _chosen(draws, asked, draws.integer(1, 3)):
            turns.append(_long(question) if draws.chance(0.5) else _short(question))
        return Content((asked.scene,), tuple(turns))

    return make


def _attribute(draws: Draws) -> Attribute:
    return SHAPE if draws.chance(_SHAPES) else COLOUR


def _layout(draws: Draws, split: Split) -> Content:
    scene = compositions.in_rows(draws, split)
    return Content((scene,), (layouts.by_place(scene, _attribute(draws), draws),))


def _by_name(draws: Draws, split: Split) -> Content:
    scene = compositions.in_rows(draws, split)
    return Content((scene,), (layouts.by_name(scene, _attribute(draws), draws),))


def _chosen(draws: Draws, asked: _Asked, count: int) -> list[Question]:
    if asked.purpose is None:
        return drawn(draws, asked.questions, count)
    rest = [question for question in asked.questions if question.text != asked.purpose.text]
    return draws.shuffled([asked.purpose, *drawn(draws, rest, count - 1)])


def _description(scene: Scene, draws: Draws) -> Turn:
    return Turn(draws.one_of(REQUESTS), describe(scene, draws))


def _short(question: Question) -> Turn:
    return Turn(f"{question.text}\n{SHORT}", question.answer)


def _long(question: Question) -> Turn:
    return Turn(question.text, question.full)


def _multiple_choice(draws: Draws, split: Split) -> Content:
    """One to three questions with four options, from any topic."""
    while True:
        asked = draws.one_of((*_TOPICS, _notices))(draws, split)
        fit = [question for question in asked.questions if len(question.wrong) >= len(_LETTERS) - 1]
        if asked.purpose is not None:
            fit = [asked.purpose, *fit]
        if fit:
            break
    count = min(len(fit), draws.integer(1, 3))
    return Content((asked.scene,), tuple(_options(draws, question) for question in draws.some_of(fit, count)))


def _options(draws: Draws, question: Question) -> Turn:
    right = draws.integer(0, len(_LETTERS) - 1)
    options = draws.shuffled(question.wrong[: len(_LETTERS) - 1])
    options.insert(right, question.answer)
    lines = [f"{letter}. {option}" for letter, option in zip(_LETTERS, options, strict=True)]
    return Turn("\n".join([question.text, *lines, LETTER]), _LETTERS[right])


def _short_conversation(draws: Draws, split: Split) -> Content:
    asked = draws.one_of(_TOPICS)(draws, split)
    return Content((asked.scene,), tuple(map(_short, _chosen(draws, asked, draws.integer(3, _MOST_TURNS)))))


def _asked_once(topic: Callable[[Draws, Split], _Asked]) -> Callable[[Draws, Split], Content]:
    """A kind with one question, half of the time answered in a sentence."""

    def make(draws: Draws, split: Split) -> Content:
        asked = topic(draws, split)
        question = draws.one_of(asked.questions)
        return Content((asked.scene,), (_long(question) if draws.chance(0.5) else _short(question),))

    return make


def _quiz(draws: Draws, split: Split) -> Content:
    """Many questions about one picture, half of the time about places: little is learned from a word or two."""
    asked = draws.one_of((_places, _by_one_attribute(spatial_questions), _colours, _counts))(draws, split)
    return Content((asked.scene,), tuple(map(_short, _chosen(draws, asked, _MANY_TURNS))))


def _long_conversation(draws: Draws, split: Split) -> Content:
    asked = draws.one_of(_TOPICS)(draws, split)
    questions = _chosen(draws, asked, draws.integer(2, _MOST_TURNS - 1))
    return Content((asked.scene,), (_description(asked.scene, draws), *map(_long, questions)))


def _short_contrast(draws: Draws, split: Split) -> Content:
    left, right, changes = contrasting(draws, split, draw_background(draws), draws.integer(1, 2))
    questions = drawn(draws, contrast.contrast_questions(left, right, changes, draws), draws.integer(1, 3))
    turns = [_long(contrast.difference(draws, changes)), *map(_short, questions)]
    return Content((left, right), tuple(draws.shuffled(turns)))


_COMPARE = (
    "Compare the two images in detail.",
    "What do the two images have in common, and in what do they differ?",
    "Describe all similarities and differences of the two images.",
)


def _long_contrast(draws: Draws, split: Split) -> Content:
    left, right, changes = contrasting(draws, split, draw_background(draws), draws.integer(1, 3))
    turns = [Turn(draws.one_of(_COMPARE), contrast.comparison(left, right, changes))]
    for side, scene in (("left", left), ("right", right)):
        if draws.chance(0.5):
            turns.append(Turn(f"What does the {side} image show?", contrast.inventory(scene, side)))
    questions = drawn(draws, contrast.contrast_questions(left, right, changes, draws), 1)
    return Content((left, right), (*turns, *map(_long, questions)))


def _reasoning(draws: Draws, split: Split) -> Content:
    scene, questions = draws.one_of(_PUZZLES)(draws, split)
    return Content((scene,), tuple(map(_long, draws.some_of(questions, min(len(questions), draws.integer(1, 2))))))


def _take_away(draws: Draws, split: Split) -> tuple[Scene, list[Question]]:
    scene, _ = compositions.groups(draws, split, draws.integer(1, 7))
    return scene, reasoning.group_reasoning(scene, draws)


def _odd_one(draws: Draws, split: Split) -> tuple[Scene, list[Question]]:
    scene = compositions.with_an_odd_one(draws, split)
    return scene, reasoning.odd_one_out(scene)


def _walk(draws: Draws, split: Split) -> tuple[Scene, list[Question]]:
    scene, rows = compositions.full_rows(draws, split)
    return scene, [reasoning.walk(rows, draws)]


def _pattern(draws: Draws, split: Split) -> tuple[Scene, list[Question]]:
    scene, period = compositions.repeating(draws, split)
    return scene, [reasoning.pattern(scene, draws, period)]


def _moves(draws: Draws, split: Split) -> tuple[Scene, list[Question]]:
    while True:
        scene = compositions.in_rows(draws, split)
        questions = reasoning.chained(scene, draws)
        if questions:
            return scene, questions


_PUZZLES = (_take_away, _odd_one, _walk, _pattern, _moves)


def _text_questions(draws: Draws, split: Split) -> Content:
    asked = _notices(draws, split)
    questions = drawn(draws, asked.questions, draws.integer(1, 3))
    forms: Sequence[Callable[[Question], Turn]] = (_short, _long)
    return Content((asked.scene,), tuple(draws.one_of(forms)(question) for question in questions))


KINDS: dict[str, Callable[[Draws, Split], Content]] = {
    "SynthColor": _aligned(_colours),
    "SynthCount": _aligned(_counts),
    "SynthSpatial": _aligned(_places),
    "SynthScene": _aligned(_landscapes),
    "SynthText": _aligned(_writing),
    "MultiChoice": _multiple_choice,
    "ConvShort": _short_conversation,
    "ConvLong": _long_conversation,
    "ContrastShort": _short_contrast,
    "ContrastLong": _long_contrast,
    "Reasoning": _reasoning,
    "TextQA": _text_questions,
}
"""Five for alignment, seven for instruction, by the names of the paper."""

OWN_KINDS: dict[str, Callable[[Draws, Split], Content]] = {
    "SynthLayout": _layout,
    "SynthPlaces": _by_name,
    "SynthWhere": _asked_once(_by_one_attribute(where_questions)),
    "SynthDirection": _asked_once(_by_one_attribute(direction_questions)),
    "ConvQuiz": _quiz,
}
"""Drawn when asked for. What a fresh model learns to see and to find from; the paper's start from trained parts."""

ALL_KINDS = KINDS | OWN_KINDS
