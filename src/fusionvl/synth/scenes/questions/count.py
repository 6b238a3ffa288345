"""Questions about how many things there are."""

from collections import Counter

from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.questions.question import Question, phrased, yes_no
from fusionvl.synth.scenes.scene_graph import Scene
from fusionvl.synth.scenes.wording import counted, plural

_HOW_MANY = (
    "How many {them} are there?",
    "How many {them} can you see?",
    "How many {them} are in the image?",
    "Count the {them}.",
    "What is the number of {them}?",
)


def how_many(draws: Draws, phrase: str, count: int) -> Question:
    """How many things fit a phrase."""
    text = phrased(draws, _HOW_MANY, them=plural(phrase))
    verb = "is" if count == 1 else "are"
    near = [number for number in range(count - 3, count + 4) if number >= 0 and number != count]
    wrong = tuple(str(number) for number in draws.some_of(near, 3))
    return Question("count", text, str(count), f"There {verb} {counted(count, phrase)} in the image.", wrong)


def count_questions(scene: Scene, draws: Draws) -> list[Question]:
    """Questions about groups of like things, and comparisons between groups."""
    things = scene.things
    shapes, colours = Counter(thing.shape for thing in things), Counter(thing.colour for thing in things)
    questions = [how_many(draws, "shape", len(things))]
    if len(shapes) > 1:
        questions += [how_many(draws, shape, count) for shape, count in shapes.items()]
    if len(colours) > 1:
        questions += [how_many(draws, f"{colour} shape", count) for colour, count in colours.items()]
    questions += _comparison(draws, shapes, "{}")
    questions += _comparison(draws, colours, "{} shape")
    questions += _most(draws, colours)
    return questions


def _comparison(draws: Draws, counts: Counter[str], form: str) -> list[Question]:
    """Are there more of these than of those? Asked both ways round, so that yes is as likely as no."""
    unequal = [(one, other) for one in counts for other in counts if counts[one] > counts[other]]
    if not unequal:
        return []
    more, fewer = draws.one_of(unequal)
    questions = []
    for truth, (first, second) in ((True, (more, fewer)), (False, (fewer, more))):
        one, other = form.format(first), form.format(second)
        facts = f"there {_are(counts[first])} {counted(counts[first], one)} and {counted(counts[second], other)}"
        text = f"Are there more {plural(one)} than {plural(other)}?"
        questions.append(yes_no("count", text, truth, facts, facts))
    return questions


def _most(draws: Draws, colours: Counter[str]) -> list[Question]:
    ranked = colours.most_common()
    if len(ranked) < 2 or ranked[0][1] == ranked[1][1]:
        return []
    colour, count = ranked[0]
    text = phrased(
        draws, ("Which color is the most common among the shapes?", "Most of the shapes share which color?")
    )
    if "Most" in text and 2 * count <= colours.total():
        text = "Which color do more shapes have than any other?"
    full = f"{colour.capitalize()} is the most common: there {_are(count)} {counted(count, f'{colour} shape')}."
    return [Question("count", text, colour, full, tuple(name for name, _ in ranked[1:4]))]


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
