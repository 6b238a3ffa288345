"""Questions about colours."""

from collections import Counter
from collections.abc import Sequence

from fusionvl.synth.scenes.combinations import Split
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.palette import BACKDROPS, COLOURS
from fusionvl.synth.scenes.questions.question import Question, phrased, yes_no
from fusionvl.synth.scenes.sampling import visible_pairs
from fusionvl.synth.scenes.scene_graph import Background, Scene, Thing
from fusionvl.synth.scenes.wording import a, listing, reference

_ASK = (
    "What color is {it}?",
    "What is the color of {it}?",
    "Which color does {it} have?",
    "Tell me the color of {it}.",
)


def colour_questions(scene: Scene, draws: Draws, split: Split) -> list[Question]:
    """All questions about the colours of a scene of things on a background."""
    if not isinstance(scene.background, Background):
        raise ValueError("colours of landscapes are asked by scene_questions")
    questions = [*_of_things(scene.things, draws), *_of_shapes(scene.things, draws)]
    questions += _same_colour(scene.things, draws)
    questions += _presence(scene, draws, split)
    questions += _all_colours(scene.things, draws)
    questions += _background(scene.background, draws)
    return questions


def _of_things(things: Sequence[Thing], draws: Draws) -> list[Question]:
    questions = []
    for thing in things:
        it = reference(thing, things, without="colour")
        if it is not None:
            text = phrased(draws, _ASK, it=it)
            questions.append(Question("colour", text, thing.colour, f"{it.capitalize()} is {thing.colour}.", _others(
                draws, thing.colour, [other.colour for other in things])))  # fmt: skip
            questions.append(_is_it(thing, it, things, draws))
    return questions


def _others(draws: Draws, colour: str, present: Sequence[str]) -> tuple[str, ...]:
    """Wrong colours, those that are in the picture first."""
    seen = draws.shuffled(sorted(set(present) - {colour}))
    unseen = draws.shuffled([name for name in COLOURS if name != colour and name not in seen])
    return tuple((seen[:2] + unseen)[:3])


def _is_it(thing: Thing, it: str, things: Sequence[Thing], draws: Draws) -> Question:
    truth = draws.chance(0.5)
    said = thing.colour if truth else _others(draws, thing.colour, [other.colour for other in things])[0]
    return yes_no("colour", f"Is {it} {said}?", truth, f"{it} is {said}", f"{it} is {thing.colour}, not {said}")


def _of_shapes(things: Sequence[Thing], draws: Draws) -> list[Question]:
    questions = []
    colours = Counter(thing.colour for thing in things)
    for thing in things:
        if colours[thing.colour] == 1:
            text = phrased(
                draws, ("Which shape is {c}?", "What is the {c} shape?", "What shape is {c}?"), c=thing.colour
            )
            wrong = sorted({other.shape for other in things} - {thing.shape})
            questions.append(
                Question("colour", text, thing.shape, f"The {thing.colour} shape is {a(thing.shape)}.", tuple(wrong))
            )
    return questions


def _same_colour(things: Sequence[Thing], draws: Draws) -> list[Question]:
    named = [(reference(thing, things, without="colour"), thing) for thing in things]
    fit = [(it, thing) for it, thing in named if it is not None]
    equal = [(x, y) for i, x in enumerate(fit) for y in fit[i + 1 :] if x[1].colour == y[1].colour]
    unequal = [(x, y) for i, x in enumerate(fit) for y in fit[i + 1 :] if x[1].colour != y[1].colour]
    questions = []
    for choice, truth in ((equal, True), (unequal, False)):
        if choice:
            (first, one), (second, other) = draws.one_of(choice)
            text = f"Do {first} and {second} have the same color?"
            denial = f"{first} is {one.colour} and {second} is {other.colour}"
            questions.append(yes_no("colour", text, truth, f"both are {one.colour}", denial))
    return questions


def _presence(scene: Scene, draws: Draws, split: Split) -> list[Question]:
    """Is there a red star? Pairs of the other split are not even mentioned."""
    present = sorted({(thing.shape, thing.colour) for thing in scene.things})
    if not isinstance(scene.background, Background):
        return []
    possible = [pair for pair in visible_pairs(split, scene.background) if pair not in present]
    shapes, colours = {pair[0] for pair in present}, {pair[1] for pair in present}
    close = [pair for pair in possible if pair[0] in shapes or pair[1] in colours]
    questions = []
    for truth, (shape, colour) in ((True, draws.one_of(present)), (False, draws.one_of(close or possible))):
        it, what = a(f"{colour} {shape}"), f"{colour} {shape}"
        text = phrased(draws, ("Is there {it} in the image?", "Can you see {it}?", "Does the image show {it}?"), it=it)
        questions.append(
            yes_no("colour", text, truth, f"there is {it} in the image", f"there is no {what} in the image")
        )
    return questions


def _all_colours(things: Sequence[Thing], draws: Draws) -> list[Question]:
    colours = sorted({thing.colour for thing in things}, key=[*COLOURS].index)
    text = phrased(
        draws, ("Which colors do the shapes have?", "List the colors of the shapes.", "What colors are the shapes?")
    )
    many = "The shapes are {}." if len(things) > 1 else "The shape is {}."
    return [Question("colour", text, ", ".join(colours), many.format(listing(colours)))]


def _background(background: Background, draws: Draws) -> list[Question]:
    if background.style != "plain":
        return []
    name = background.names[0]
    wrong = tuple(draws.some_of([other for other in BACKDROPS if other != name], 3))
    text = phrased(draws, ("What color is the background?", "What is the color of the background?"))
    return [Question("colour", text, name, f"The background is {name}.", wrong)]
