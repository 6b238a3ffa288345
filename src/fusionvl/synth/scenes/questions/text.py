"""Questions about what is written, and on what."""

from collections.abc import Sequence

from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.palette import COLOURS
from fusionvl.synth.scenes.questions.count import how_many
from fusionvl.synth.scenes.questions.question import Question, phrased, yes_no
from fusionvl.synth.scenes.scene_graph import Scene, Sign

_READ = ("What does {it} say?", "What is written on {it}?", "Read the text on {it}.", "Which text is on {it}?")
_ORDINALS = ("first", "second", "third", "fourth", "fifth")
_HEIGHTS = {1: ("",), 2: ("top", "bottom"), 3: ("top", "middle", "bottom")}


def sign_names(scene: Scene) -> list[str]:
    """What to call the signs, in their order: by place where there are several."""
    return [f"the {place} sign".replace("  ", " ") for place in _HEIGHTS[len(scene.signs)]]


def said(sign: Sign) -> str:
    """The text of a sign on one line."""
    return " ".join(sign.lines)


def text_questions(scene: Scene, draws: Draws, words: Sequence[str]) -> list[Question]:
    """Questions about the signs of a scene.

    Args:
        scene: Its signs stand one below the other.
        draws: Chooses the phrasing.
        words: Texts like those on the signs, for wrong answers.
    """
    questions: list[Question] = []
    for name, sign in zip(sign_names(scene), scene.signs, strict=True):
        questions += _of_sign(name, sign, draws, words)
    if len(scene.signs) > 1:
        questions.append(how_many(draws, "sign", len(scene.signs)))
        questions += _by_colour(scene, draws)
    return questions


def _of_sign(name: str, sign: Sign, draws: Draws, words: Sequence[str]) -> list[Question]:
    text, subject = said(sign), name.capitalize()
    wrong = tuple(draws.some_of([word for word in words if word != text], 3))
    questions = [
        Question("text", phrased(draws, _READ, it=name), text, f'{subject} says "{text}".', wrong),
        _colour(draws, f"What color is {name}?", sign.board, f"{subject} is {sign.board}."),
        _colour(draws, f"What color are the letters on {name}?", sign.ink, f"The letters are {sign.ink}."),
    ]
    if len(sign.lines) > 1:
        index = draws.integer(0, len(sign.lines) - 1)
        line, rest = sign.lines[index], tuple(other for i, other in enumerate(sign.lines) if i != index)
        ask = f"What is written on the {_ORDINALS[index]} line of {name}?"
        questions.append(Question("text", ask, line, f'The {_ORDINALS[index]} line says "{line}".', rest))
    for guess in (text, wrong[0]):
        ask = f'Does {name} say "{guess}"?'
        statement, denial = f'{name} says "{text}"', f'{name} says "{text}", not "{guess}"'
        questions.append(yes_no("text", ask, guess == text, statement, denial))
    return questions


def _colour(draws: Draws, text: str, colour: str, full: str) -> Question:
    wrong = tuple(draws.some_of([name for name in COLOURS if name != colour], 3))
    return Question("text", text, colour, full, wrong)


def _by_colour(scene: Scene, draws: Draws) -> list[Question]:
    questions = []
    for sign in scene.signs:
        others = tuple(said(other) for other in scene.signs if other is not sign)
        it = f"the {sign.board} sign"
        full = f'{it.capitalize()} says "{said(sign)}".'
        questions.append(Question("text", phrased(draws, _READ, it=it), said(sign), full, others))
    return questions
