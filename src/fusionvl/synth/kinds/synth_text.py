"""SynthText: what is written on signs, and in which colours."""

from collections.abc import Sequence

from fusionvl.synth.kinds.kind import Kind
from fusionvl.synth.kinds.scene_question import SceneQuestion, yes_no
from fusionvl.synth.kinds.synth_count import how_many
from fusionvl.synth.kinds.topic import Composed, aligned
from fusionvl.synth.kinds.written import Asked, Line, conversation
from fusionvl.synth.rows import SynthTurn
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.lexicon import WORDS, made_up_name
from fusionvl.synth.scenes.palette import COLOURS
from fusionvl.synth.scenes.scene_graph import Scene, Sign
from fusionvl.synth.scenes.signs import sign_scene
from fusionvl.synth.scenes.things import Split, draw_background, words_of
from fusionvl.synth.scenes.wording import sign_names

_READ = ("What does {it} say?", "What is written on {it}?", "Read the text on {it}.", "Which text is on {it}?")
_ORDINALS = ("first", "second")


class AskedText(Asked):
    """With the words, as they are written in the picture, that the answer rests on."""

    written: Line

    def turn(self) -> SynthTurn:
        """As a row keeps it."""
        return SynthTurn(self.question, self.answer, correct=self.written)


def writing(draws: Draws, split: Split) -> Composed:
    """One to three signs with all questions about them."""
    background = draw_background(draws)
    texts = [_text(draws, split) for _ in range(draws.integer(1, 3))]
    alike = {" ".join(_text(draws, split)) for _ in range(8)}
    scene = sign_scene(draws, background, texts)
    words = sorted(alike - {sign.text for sign in scene.signs})
    questions: list[SceneQuestion] = []
    for name, sign in zip(sign_names(scene), scene.signs, strict=True):
        questions += _of_sign(name, sign, draws, words)
    if len(scene.signs) > 1:
        questions += [how_many(draws, "sign", len(scene.signs)), *_by_colour(scene, draws)]
    return Composed(scene, questions)


def _text(draws: Draws, split: Split) -> list[str]:
    """The lines of a sign: a made-up name, a word with a number, or one or two words."""
    words = words_of(split, WORDS)
    form = draws.integer(0, 4)
    if form == 0:
        return [made_up_name(draws, split)]
    if form == 1:
        return [draws.one_of(words), str(draws.integer(1, 999))]
    if form == 2:
        return [f"{draws.one_of(words)} {draws.integer(1, 99)}"]
    return draws.some_of(words, 1 if form == 3 else 2)


def _of_sign(name: str, sign: Sign, draws: Draws, words: Sequence[str]) -> list[SceneQuestion]:
    subject = name.capitalize()
    wrong = tuple(draws.some_of(words, 3))
    questions = [
        SceneQuestion(draws.phrase(_READ, it=name), sign.text, f'{subject} says "{sign.text}".', wrong),
        _colour(draws, f"What color is {name}?", sign.board, f"{subject} is {sign.board}."),
        _colour(draws, f"What color are the letters on {name}?", sign.ink, f"The letters are {sign.ink}."),
    ]
    if len(sign.lines) > 1:
        number = draws.integer(0, len(sign.lines) - 1)
        line, rest = sign.lines[number], tuple(other for i, other in enumerate(sign.lines) if i != number)
        text = f"What is written on the {_ORDINALS[number]} line of {name}?"
        questions.append(SceneQuestion(text, line, f'The {_ORDINALS[number]} line says "{line}".', rest))
    for guess in (sign.text, wrong[0]):
        statement, denial = f'{name} says "{sign.text}"', f'{name} says "{sign.text}", not "{guess}"'
        questions.append(yes_no(f'Does {name} say "{guess}"?', guess == sign.text, statement, denial))
    return questions


def _colour(draws: Draws, text: str, colour: str, full: str) -> SceneQuestion:
    return SceneQuestion(text, colour, full, draws.others(COLOURS, colour))


def _by_colour(scene: Scene, draws: Draws) -> list[SceneQuestion]:
    questions = []
    for sign in scene.signs:
        others = tuple(other.text for other in scene.signs if other is not sign)
        it = f"the {sign.board} sign"
        full = f'{it.capitalize()} says "{sign.text}".'
        questions.append(SceneQuestion(draws.phrase(_READ, it=it), sign.text, full, others))
    return questions


SYNTH_TEXT = Kind("SynthText", aligned(writing), conversation(AskedText, 1, 3))
