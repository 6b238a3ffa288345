"""Questions whose answers take a step of thought; the full answer says the step."""

from collections import Counter

from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.placement import direction
from fusionvl.synth.scenes.questions.question import Question
from fusionvl.synth.scenes.scene_graph import Scene, Thing
from fusionvl.synth.scenes.wording import DIRECTIONS, a, counted, noun_phrase, plural, reference


def group_reasoning(scene: Scene, draws: Draws) -> list[Question]:
    """Arithmetic with groups of things: some taken away, some added, a difference."""
    things = scene.things
    colours, shapes = Counter(thing.colour for thing in things), Counter(thing.shape for thing in things)
    questions = [_removed(len(things), f"{colour} shape", count) for colour, count in colours.items()]
    questions += [_removed(len(things), shape, count) for shape, count in shapes.items() if count < len(things)]
    questions += _difference(draws, colours, "{} shape")
    questions += _difference(draws, shapes, "{}")
    shape = draws.one_of(sorted(shapes))
    questions.append(_added(shape, shapes[shape], draws.integer(1, 4)))
    return questions


def _removed(total: int, phrase: str, count: int) -> Question:
    left = total - count
    them = f"the only {phrase}" if count == 1 else f"all {plural(phrase)}"
    share = f"1 of them is {a(phrase)}" if count == 1 else f"{count} of them are {plural(phrase)}"
    would = f"{total} - {count} = {left}, so {left} would be left."
    full = f"There are {total} shapes in all, and {share}. {would}"
    text = f"How many shapes would be left if you took away {them}?"
    return Question("reasoning", text, str(left), full, tuple(str(left + off) for off in (1, 2, 3)))


def _added(phrase: str, count: int, more: int) -> Question:
    verb, total = "is" if count == 1 else "are", count + more
    full = f"There {verb} {counted(count, phrase)} now. {count} + {more} = {total}, so there would be {total}."
    text = f"If {counted(more, f'more {phrase}')} {'was' if more == 1 else 'were'} drawn, "
    text += f"how many {plural(phrase)} would there be?"
    return Question("reasoning", text, str(total), full, tuple(str(total + off) for off in (1, -1, 2)))


def _difference(draws: Draws, counts: Counter[str], form: str) -> list[Question]:
    ranked = [(name, count) for name, count in counts.items()]
    pairs = [(x, y) for x in ranked for y in ranked if x[1] > y[1]]
    if not pairs:
        return []
    (more, high), (fewer, low) = draws.one_of(pairs)
    one, other = form.format(more), form.format(fewer)
    full = (
        f"There are {counted(high, one)} and {counted(low, other)}. "
        f"{high} - {low} = {high - low}, so there {'is' if high - low == 1 else 'are'} {high - low} more."
    )
    text = f"How many more {plural(one)} than {plural(other)} are there?"
    return [Question("reasoning", text, str(high - low), full, tuple(str(high - low + off) for off in (1, 2, 3)))]


def odd_one_out(scene: Scene) -> list[Question]:
    """The one thing that differs from all the others, in shape or in colour."""
    questions = []
    for attribute in ("shape", "colour"):
        counts = Counter(getattr(thing, attribute) for thing in scene.things)
        if sorted(counts.values())[:1] != [1] or len(counts) != 2:
            continue
        odd = next(thing for thing in scene.things if counts[getattr(thing, attribute)] == 1)
        common = next(value for value, count in counts.items() if count > 1)
        what = noun_phrase(odd)
        others = plural(common) if attribute == "shape" else common
        full = f"All the others are {others}, but this one is {a(odd.shape) if attribute == 'shape' else odd.colour}: "
        text = "Which shape does not belong with the others, and why?"
        wrong = tuple(dict.fromkeys(noun_phrase(t) for t in scene.things if noun_phrase(t) != what))
        questions.append(Question("reasoning", text, f"the {what}", f"{full}the {what} does not belong.", wrong[:3]))
    return questions if len(questions) == 1 else []


def walk(rows: list[list[Thing]], draws: Draws) -> Question:
    """Two steps through things that stand in rows and columns."""
    everything = tuple(thing for row in rows for thing in row)
    y, x = draws.integer(0, len(rows) - 1), draws.integer(0, len(rows[0]) - 1)
    across = draws.one_of([step for step in (-1, 1) if 0 <= x + step < len(rows[0])])
    along = draws.one_of([step for step in (-1, 1) if 0 <= y + step < len(rows)])
    first, second = ("right" if across > 0 else "left"), ("down" if along > 0 else "up")
    start, middle, end = rows[y][x], rows[y][x + across], rows[y + along][x + across]
    what = noun_phrase(end)
    full = (
        f"One step to the {first} of {reference(start, everything)} is {reference(middle, everything)}, "
        f"and one step {second} from there is {reference(end, everything)}."
    )
    text = (
        f"Start at {reference(start, everything)}, go one step to the {first} and then one step {second}. "
        "Which shape do you reach?"
    )
    wrong = tuple(dict.fromkeys(noun_phrase(t) for t in everything if noun_phrase(t) != what))
    return Question("reasoning", text, f"the {what}", full, tuple(f"the {word}" for word in draws.some_of(wrong, 3)))


def pattern(scene: Scene, draws: Draws, period: int) -> Question:
    """What comes next in a row of things that repeats."""
    things = sorted(scene.things, key=lambda thing: thing.x)
    following = things[len(things) % period]
    unit = ", ".join(noun_phrase(thing) for thing in things[:period])
    what = noun_phrase(following)
    full = f"From left to right the row repeats {unit}. After {a(noun_phrase(things[-1]))} comes {a(what)}."
    wrong = tuple(dict.fromkeys(a(noun_phrase(thing)) for thing in things if noun_phrase(thing) != what))
    text = "The row of shapes follows a pattern. Which shape comes next on the right?"
    return Question("reasoning", text, a(what), full, wrong[:3])


def chained(scene: Scene, draws: Draws) -> list[Question]:
    """From A's place to B's, by way of a third thing: relations put together."""
    named = [(it, thing) for thing in scene.things if (it := reference(thing, scene.things)) is not None]
    questions = []
    for it, thing in named:
        for other_it, other in named:
            where = direction((thing.x, thing.y), (other.x, other.y))
            if thing is other or where is None or len(where.split()) != 2:
                continue
            vertical, horizontal = where.split()
            across = {"left": "right", "right": "left"}[horizontal]
            along = {"above": "down", "below": "up"}[vertical]
            text = f"Which way would you have to move {it} to bring it onto {other_it}?"
            answer = f"{along} and to the {across}"
            full = f"{it.capitalize()} is {DIRECTIONS[where]} {other_it}, so it would have to move {answer}."
            wrong = (f"{along} and to the {horizontal}",
                     f"{'up' if along == 'down' else 'down'} and to the {across}",
                     f"{'up' if along == 'down' else 'down'} and to the {horizontal}")  # fmt: skip
            questions.append(Question("reasoning", text, answer, full, wrong))
    return questions
