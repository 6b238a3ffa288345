"""Reasoning: questions whose answers take a step of thought, which comes before the answer."""

from collections import Counter

from fusionvl.synth.kinds.kind import Content, Kind
from fusionvl.synth.kinds.naming import BY_ALL
from fusionvl.synth.kinds.scene_question import SceneQuestion
from fusionvl.synth.kinds.topic import Composed
from fusionvl.synth.kinds.written import Line, Prose, Written, conversation
from fusionvl.synth.rows import SynthTurn
from fusionvl.synth.scenes.compositions import full_rows, groups, in_rows, repeating, with_an_odd_one
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.placement import direction
from fusionvl.synth.scenes.things import Split
from fusionvl.synth.scenes.wording import DIRECTIONS, OPPOSITES, a, are, counted, noun_phrase, plural, reference


class AskedReasoning(Written):
    """A question with the steps that lead to its answer, and then the answer."""

    question: Line
    reasoning: Prose
    answer: Line

    def turn(self) -> SynthTurn:
        """As a row keeps it."""
        return SynthTurn(self.question, f"{self.reasoning} So the answer is: {self.answer}", correct=self.answer)


def _scene(draws: Draws, split: Split) -> Content:
    composed = draws.one_of((_take_away, _odd_one_out, _walk, _pattern, _moves))(draws, split)
    chosen = draws.some_of(composed.questions, min(len(composed.questions), draws.integer(1, 2)))
    return composed.content(question.long() for question in chosen)


def _take_away(draws: Draws, split: Split) -> Composed:
    """Arithmetic with groups of things: some taken away, some added, a difference."""
    scene, _ = groups(draws, split, draws.integer(1, 7))
    things = scene.things
    colours, shapes = Counter(thing.colour for thing in things), Counter(thing.shape for thing in things)
    questions = [_removed(len(things), f"{colour} shape", count) for colour, count in colours.items()]
    questions += [_removed(len(things), shape, count) for shape, count in shapes.items() if count < len(things)]
    questions += _difference(draws, colours, "{} shape")
    questions += _difference(draws, shapes, "{}")
    shape = draws.one_of(sorted(shapes))
    return Composed(scene, [*questions, _added(shape, shapes[shape], draws.integer(1, 4))])


def _removed(total: int, phrase: str, count: int) -> SceneQuestion:
    left = total - count
    them = f"the only {phrase}" if count == 1 else f"all {plural(phrase)}"
    share = f"1 of them is {a(phrase)}" if count == 1 else f"{count} of them are {plural(phrase)}"
    would = f"{total} - {count} = {left}, so {left} would be left."
    text = f"How many shapes would be left if you took away {them}?"
    return SceneQuestion(text, str(left), f"There are {total} shapes in all, and {share}. {would}")


def _added(phrase: str, count: int, more: int) -> SceneQuestion:
    total, were = count + more, "was" if more == 1 else "were"
    sum_of_both = f"{count} + {more} = {total}, so there would be {total}."
    text = f"If {counted(more, f'more {phrase}')} {were} drawn, how many {plural(phrase)} would there be?"
    return SceneQuestion(text, str(total), f"There {are(count)} {counted(count, phrase)} now. {sum_of_both}")


def _difference(draws: Draws, numbers: Counter[str], form: str) -> list[SceneQuestion]:
    pairs = [(one, other) for one in numbers for other in numbers if numbers[one] > numbers[other]]
    if not pairs:
        return []
    more, fewer = draws.one_of(pairs)
    one, other, high, low = form.format(more), form.format(fewer), numbers[more], numbers[fewer]
    result = f"{high} - {low} = {high - low}, so there {are(high - low)} {high - low} more."
    full = f"There are {counted(high, one)} and {counted(low, other)}. {result}"
    return [SceneQuestion(f"How many more {plural(one)} than {plural(other)} are there?", str(high - low), full)]


def _odd_one_out(draws: Draws, split: Split) -> Composed:
    """The one thing that differs from all the others, in shape or in colour."""
    scene = with_an_odd_one(draws, split)
    shapes, colours = ([getattr(thing, name) for thing in scene.things] for name in ("shape", "colour"))
    by_shape = len(set(shapes)) > 1
    values = shapes if by_shape else colours
    odd = next(thing for thing, value in zip(scene.things, values, strict=True) if values.count(value) == 1)
    common = next(value for value in values if values.count(value) > 1)
    others, this = (plural(common), a(odd.shape)) if by_shape else (common, odd.colour)
    what = f"the {noun_phrase(odd)}"
    full = f"All the others are {others}, but this one is {this}: {what} does not belong."
    return Composed(scene, [SceneQuestion("Which shape does not belong with the others, and why?", what, full)])


def _walk(draws: Draws, split: Split) -> Composed:
    """Two steps through things that stand in rows and columns."""
    scene, rows = full_rows(draws, split)
    y, x = draws.integer(0, len(rows) - 1), draws.integer(0, len(rows[0]) - 1)
    across = draws.one_of([step for step in (-1, 1) if 0 <= x + step < len(rows[0])])
    along = draws.one_of([step for step in (-1, 1) if 0 <= y + step < len(rows)])
    first, second = ("right" if across > 0 else "left"), ("down" if along > 0 else "up")
    way = (rows[y][x], rows[y][x + across], rows[y + along][x + across])
    start, middle, end = (reference(thing, scene.things) for thing in way)
    full = f"One step to the {first} of {start} is {middle}, and one step {second} from there is {end}."
    text = f"Start at {start}, go one step to the {first} and then one step {second}. Which shape do you reach?"
    return Composed(scene, [SceneQuestion(text, f"the {noun_phrase(way[-1])}", full)])


def _pattern(draws: Draws, split: Split) -> Composed:
    """What comes next in a row of things that repeats."""
    scene, period = repeating(draws, split)
    row = [noun_phrase(thing) for thing in scene.things]
    following = a(row[len(row) % period])
    full = f"From left to right the row repeats {', '.join(row[:period])}. After {a(row[-1])} comes {following}."
    text = "The row of shapes follows a pattern. Which shape comes next on the right?"
    return Composed(scene, [SceneQuestion(text, following, full)])


def _moves(draws: Draws, split: Split) -> Composed:
    """The way from one thing to another that is off to the side and up or down."""
    while True:
        scene = in_rows(draws, split)
        named = BY_ALL.named(scene.things)
        questions = [
            question for it, thing in named for other_it, other in named
            for question in _move(it, other_it, direction(thing, other))
        ]  # fmt: skip
        if questions:
            return Composed(scene, questions)


def _move(it: str, other: str, where: str | None) -> list[SceneQuestion]:
    """How one thing would have to be moved onto another, seen from which it is somewhere."""
    words = (where or "").split()
    if len(words) != 2:
        return []
    vertical, horizontal = words
    answer = f"{'down' if vertical == 'above' else 'up'} and to the {OPPOSITES[horizontal]}"
    text = f"Which way would you have to move {it} to bring it onto {other}?"
    full = f"{it.capitalize()} is {DIRECTIONS[f'{vertical} {horizontal}']} {other}, so it would have to move {answer}."
    return [SceneQuestion(text, answer, full)]


REASONING = Kind("Reasoning", _scene, conversation(AskedReasoning, 1, 2))
