"""SynthCount: how many things of a kind there are, and of what there are more."""

from collections import Counter
from typing import Annotated

from pydantic import Field

from fusionvl.synth.kinds.kind import Kind
from fusionvl.synth.kinds.scene_question import SceneQuestion, yes_no
from fusionvl.synth.kinds.topic import Composed, aligned
from fusionvl.synth.kinds.written import Asked, conversation
from fusionvl.synth.rows import SynthTurn
from fusionvl.synth.scenes.compositions import MAX_COUNT, groups
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.scene_graph import Scene
from fusionvl.synth.scenes.things import Split
from fusionvl.synth.scenes.wording import are, counted, plural

_HOW_MANY = (
    "How many {them} are there?",
    "How many {them} can you see?",
    "How many {them} are in the image?",
    "Count the {them}.",
    "What is the number of {them}?",
)


class AskedCount(Asked):
    """With the number that the answer must name."""

    count: Annotated[int, Field(ge=0, le=100)]

    def turn(self) -> SynthTurn:
        """As a row keeps it."""
        return SynthTurn(self.question, self.answer, correct=str(self.count))


def counts(draws: Draws, split: Split) -> Composed:
    """Groups of things, and above all: how many there are of one of them."""
    scene, (shape, colour) = groups(draws, split, draws.integer(0, MAX_COUNT))
    count = sum((thing.shape, thing.colour) == (shape, colour) for thing in scene.things)
    questions = _of_groups(scene, draws)
    return Composed(scene, questions, how_many(draws, f"{colour} {shape}", count))


def how_many(draws: Draws, phrase: str, count: int) -> SceneQuestion:
    """How many things fit a phrase."""
    text = draws.phrase(_HOW_MANY, them=plural(phrase))
    near = [number for number in range(count - 3, count + 4) if number >= 0 and number != count]
    full = f"There {are(count)} {counted(count, phrase)} in the image."
    return SceneQuestion(text, str(count), full, tuple(map(str, draws.some_of(near, 3))))


def _of_groups(scene: Scene, draws: Draws) -> list[SceneQuestion]:
    """Questions about groups of like things, and comparisons between groups."""
    shapes = Counter(thing.shape for thing in scene.things)
    colours = Counter(thing.colour for thing in scene.things)
    questions = [how_many(draws, "shape", len(scene.things))]
    if len(shapes) > 1:
        questions += [how_many(draws, shape, count) for shape, count in shapes.items()]
    if len(colours) > 1:
        questions += [how_many(draws, f"{colour} shape", count) for colour, count in colours.items()]
    return [*questions, *_more(draws, shapes, "{}"), *_more(draws, colours, "{} shape"), *_most(draws, colours)]


def _more(draws: Draws, numbers: Counter[str], form: str) -> list[SceneQuestion]:
    """Are there more of these than of those? Asked both ways round, so that yes is as likely as no."""
    unequal = [(one, other) for one in numbers for other in numbers if numbers[one] > numbers[other]]
    if not unequal:
        return []
    more, fewer = draws.one_of(unequal)
    questions = []
    for truth, (first, second) in ((True, (more, fewer)), (False, (fewer, more))):
        one, other = form.format(first), form.format(second)
        ones, others = counted(numbers[first], one), counted(numbers[second], other)
        facts = f"there {are(numbers[first])} {ones} and {others}"
        questions.append(yes_no(f"Are there more {plural(one)} than {plural(other)}?", truth, facts, facts))
    return questions


def _most(draws: Draws, colours: Counter[str]) -> list[SceneQuestion]:
    ranked = colours.most_common()
    if len(ranked) < 2 or ranked[0][1] == ranked[1][1]:
        return []
    colour, count = ranked[0]
    text = draws.phrase(("Which color is the most common among the shapes?", "Most of the shapes share which color?"))
    if "Most" in text and 2 * count <= colours.total():
        text = "Which color do more shapes have than any other?"
    full = f"{colour.capitalize()} is the most common: there {are(count)} {counted(count, f'{colour} shape')}."
    return [SceneQuestion(text, colour, full, tuple(name for name, _ in ranked[1:4]))]


SYNTH_COUNT = Kind("SynthCount", aligned(counts), conversation(AskedCount, 1, 3))
