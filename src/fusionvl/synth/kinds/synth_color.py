"""SynthColor: colours of things and of the background, and what has which colour."""

from collections import Counter
from collections.abc import Sequence

from fusionvl.synth.kinds.kind import Kind
from fusionvl.synth.kinds.scene_question import SceneQuestion, yes_no
from fusionvl.synth.kinds.topic import Composed, aligned
from fusionvl.synth.kinds.written import Asked, Line, conversation
from fusionvl.synth.rows import SynthTurn
from fusionvl.synth.scenes.compositions import a_few_things
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.palette import BACKDROPS, COLOURS
from fusionvl.synth.scenes.scene_graph import Background, Thing
from fusionvl.synth.scenes.things import Split, visible_pairs
from fusionvl.synth.scenes.wording import a, listing, reference


class AskedColour(Asked):
    """With the colour that the answer must name."""

    color: Line

    def turn(self) -> SynthTurn:
        """As a row keeps it."""
        return SynthTurn(self.question, self.answer, correct=self.color)


def colours(draws: Draws, split: Split) -> Composed:
    """A few things with all questions about their colours."""
    scene = a_few_things(draws, split)
    if not isinstance(scene.background, Background):
        raise ValueError("colours are asked of things on a background")
    questions = [*_of_things(scene.things, draws), *_of_shapes(scene.things, draws)]
    questions += _same_colour(scene.things, draws)
    questions += _presence(scene.things, scene.background, draws, split)
    questions += [_all_colours(scene.things, draws), *_of_background(scene.background, draws)]
    return Composed(scene, questions)


def _of_things(things: Sequence[Thing], draws: Draws) -> list[SceneQuestion]:
    forms = (
        "What color is {it}?",
        "What is the color of {it}?",
        "Which color does {it} have?",
        "Tell me the color of {it}.",
    )
    questions = []
    for it, thing in _named(things):
        text, wrong = draws.phrase(forms, it=it), _others(draws, thing, things)
        questions.append(SceneQuestion(text, thing.colour, f"{it.capitalize()} is {thing.colour}.", wrong))
        truth = draws.chance(0.5)
        said = thing.colour if truth else _others(draws, thing, things)[0]
        denial = f"{it} is {thing.colour}, not {said}"
        questions.append(yes_no(f"Is {it} {said}?", truth, f"{it} is {said}", denial))
    return questions


def _named(things: Sequence[Thing]) -> list[tuple[str, Thing]]:
    """The things that can be told from all others without their colour."""
    return [(it, thing) for thing in things if (it := reference(thing, things, without="colour")) is not None]


def _others(draws: Draws, thing: Thing, things: Sequence[Thing]) -> tuple[str, ...]:
    """Wrong colours, those that are in the picture first."""
    seen = draws.shuffled(sorted({other.colour for other in things} - {thing.colour}))
    unseen = draws.shuffled([name for name in COLOURS if name != thing.colour and name not in seen])
    return tuple((seen[:2] + unseen)[:3])


def _of_shapes(things: Sequence[Thing], draws: Draws) -> list[SceneQuestion]:
    forms = ("Which shape is {c}?", "What is the {c} shape?", "What shape is {c}?")
    worn = Counter(thing.colour for thing in things)
    questions = []
    for thing in (thing for thing in things if worn[thing.colour] == 1):
        wrong = tuple(sorted({other.shape for other in things} - {thing.shape}))
        full = f"The {thing.colour} shape is {a(thing.shape)}."
        questions.append(SceneQuestion(draws.phrase(forms, c=thing.colour), thing.shape, full, wrong))
    return questions


def _same_colour(things: Sequence[Thing], draws: Draws) -> list[SceneQuestion]:
    named = _named(things)
    both = [(one, other) for index, one in enumerate(named) for other in named[index + 1 :]]
    questions = []
    for truth in (True, False):
        choice = [pair for pair in both if (pair[0][1].colour == pair[1][1].colour) == truth]
        if choice:
            (first, one), (second, other) = draws.one_of(choice)
            text = f"Do {first} and {second} have the same color?"
            denial = f"{first} is {one.colour} and {second} is {other.colour}"
            questions.append(yes_no(text, truth, f"both are {one.colour}", denial))
    return questions


def _presence(things: Sequence[Thing], background: Background, draws: Draws, split: Split) -> list[SceneQuestion]:
    """Is there a red star? Pairs of the other split are not even mentioned."""
    forms = ("Is there {it} in the image?", "Can you see {it}?", "Does the image show {it}?")
    present = sorted({(thing.shape, thing.colour) for thing in things})
    absent = [pair for pair in visible_pairs(split, background) if pair not in present]
    shapes, worn = {pair[0] for pair in present}, {pair[1] for pair in present}
    close = [pair for pair in absent if pair[0] in shapes or pair[1] in worn]
    questions = []
    for truth, (shape, colour) in ((True, draws.one_of(present)), (False, draws.one_of(close or absent))):
        what = f"{colour} {shape}"
        statement, denial = f"there is {a(what)} in the image", f"there is no {what} in the image"
        questions.append(yes_no(draws.phrase(forms, it=a(what)), truth, statement, denial))
    return questions


def _all_colours(things: Sequence[Thing], draws: Draws) -> SceneQuestion:
    worn = sorted({thing.colour for thing in things}, key=[*COLOURS].index)
    forms = ("Which colors do the shapes have?", "List the colors of the shapes.", "What colors are the shapes?")
    return SceneQuestion(draws.phrase(forms), ", ".join(worn), f"The shapes are {listing(worn)}.")


def _of_background(background: Background, draws: Draws) -> list[SceneQuestion]:
    if background.style != "plain":
        return []
    (name,) = background.names
    wrong = draws.others(BACKDROPS, name)
    text = draws.phrase(("What color is the background?", "What is the color of the background?"))
    return [SceneQuestion(text, name, f"The background is {name}.", wrong)]


SYNTH_COLOR = Kind("SynthColor", aligned(colours), conversation(AskedColour, 1, 3))
