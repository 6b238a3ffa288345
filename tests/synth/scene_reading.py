"""An independent reading of scenes: what somebody who sees the graph would answer, in the words that are expected.

Shares no code with what asks, so that each would have to be wrong in the same way.

    python tests/synth/scene_reading.py 1000

checks so many scenes of every kind and split, without drawing them, and prints how many answers are wrong.
"""

import re
import sys
from collections import Counter

import drawn_facts
from contrast_reading import comparison, has_more, how_many_differences, in_both, inventory, which_has
from scene_facts import (
    AWAY,
    NUMBERS,
    PLACE,
    SETTINGS,
    SIDE,
    TIMES,
    DoubtError,
    a,
    be,
    capital,
    counted,
    described,
    fitting,
    hours,
    in_reading_order,
    language_of,
    lines,
    listed,
    noun,
    number_of,
    offset,
    only,
    overlapping,
    place,
    plural,
    prices,
    sign,
    singular,
    sure,
    tells_differences,
    text_of,
    the,
    there_are,
    told,
    yes,
)

from fusionvl.synth.scenes.lexicon import NOTIONS
from fusionvl.synth.scenes.palette import COLOURS
from fusionvl.synth.scenes.shapes import SHAPES

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
COLOUR = f"({'|'.join(COLOURS)})"
ENDS = {
    "furthest to the left": ("x", 1), "furthest to the right": ("x", -1),
    "highest up": ("y", 1), "lowest down": ("y", -1),
}  # fmt: skip
WHAT = "(What|Which (?:shape|thing)|What is the (?:shape|thing)|(?:What|Which) (?:kind of shape|color))"
# Answers: in short and in full, from the graph and the groups of the question's pattern


def is_colour(scene, it, colour):
    right = the(scene, it)["colour"]
    return yes(right == colour, f"the {it} is {colour}", f"the {it} is {right}, not {colour}")


def same_colour(scene, *names):
    (one, first), (other, second) = ((name, the(scene, name)["colour"]) for name in names)
    return yes(first == second, f"both are {first}", f"the {one} is {first} and the {other} is {second}")


def presence(scene, what):
    if drawn_facts.is_drawn(scene):
        return drawn_facts.drawn_presence(scene, what)
    number, land = number_of(scene, what), "setting" in scene["background"]
    if what == "house" and scene["background"].get("setting") == "street":
        raise DoubtError("houses line the street")
    there = there_are(number, what) if land else f"there is {a(what)}"
    return yes(number, f"{there} in the image", f"there is no {what} in the image")


def all_colours(scene):
    worn = [colour for colour in COLOURS if fitting(scene, colour)]
    return ", ".join(worn), f"The shapes are {listed(worn)}."


def most_common(scene, most):
    (colour, number), (_, second) = Counter(thing["colour"] for thing in scene["things"]).most_common(2)
    if number == second or (most == "Most" and 2 * number <= len(scene["things"])):
        raise DoubtError(f"{number} of {len(scene['things'])} are {colour}")
    return colour, f"{capital(colour)} is the most common: {there_are(number, f'{colour} shape')}."


def how_many(scene, several):
    if drawn_facts.is_drawn(scene):
        return drawn_facts.drawn_count(scene, singular(several))
    number = number_of(scene, singular(several))
    return str(number), f"{capital(there_are(number, singular(several)))} in the image."


def more(scene, *several):
    (one, x), (other, y) = ((singular(phrase), number_of(scene, singular(phrase))) for phrase in several)
    return yes(x > y, f"{there_are(x, one)} and {counted(y, other)}")


def taken_away(scene, several, single):
    phrase, total = single or singular(several), len(scene["things"])
    number = number_of(scene, phrase)
    if (number == 1) != bool(single):
        raise DoubtError(f"{number} are {phrase}")
    share = f"1 of them is {a(phrase)}" if single else f"{number} of them are {plural(phrase)}"
    left = total - number
    sum_of_it = f"{total} - {number} = {left}, so {left} would be left."
    return str(left), f"There are {total} shapes in all, and {share}. {sum_of_it}"


def added(scene, number, _, several):
    now, number, phrase = number_of(scene, singular(several)), NUMBERS.index(number), singular(several)
    total = now + number
    sum_of_it = f"{now} + {number} = {total}, so there would be {total}."
    return str(total), f"{capital(there_are(now, phrase))} now. {sum_of_it}"


def how_many_more(scene, *several):
    (one, x), (other, y) = ((singular(phrase), number_of(scene, singular(phrase))) for phrase in several)
    steps = f"There are {counted(x, one)} and {counted(y, other)}. {x} - {y} = {x - y}"
    return str(x - y), f"{steps}, so there {be(x - y)} {x - y} more."


def relation(scene, it, other):
    where = told(*offset(the(scene, it), the(scene, other)))
    return where.removesuffix(" of"), f"The {it} is {where} the {other}."


def is_it_there(scene, it, side, other):
    axis = 0 if side.startswith("to") else 1
    there = offset(the(scene, it), the(scene, other))[axis]
    right = only([word for word, away in AWAY.items() if there and away[axis] == there])
    return yes(right == side, f"the {it} is {side} the {other}", f"the {it} is {right} the {other}")


def named(what, thing):
    """A thing as a question wants it: in short, and within a sentence."""
    if what.endswith("color"):
        return thing["colour"], f"something {thing['colour']}"
    return (thing["shape"] if what.endswith("kind of shape") else a(noun(thing))), a(
        thing["shape"] if what.endswith("kind of shape") else noun(thing)
    )


def what_is_there(scene, what, where):
    short, long = named(what, only([thing for thing in scene["things"] if place(thing) == where]))
    return short, f"There is {long} {where} of the image."


def neighbour(scene, what, side, it):
    here = the(scene, it)
    there = [thing for thing in scene["things"] if thing is not here and offset(thing, here) == AWAY[side]]
    short, long = named(what, only(there))
    return short, f"{capital(long)} is directly {side} the {it}."


def furthest(scene, what, end):
    axis, sign_of_it = ENDS[end]
    first, second, *_ = sorted(scene["things"], key=lambda thing: sign_of_it * thing[axis])
    sure(first[axis] - second[axis])
    short, long = named(what, first)
    noun_of_all = "thing" if drawn_facts.is_drawn(scene) else "shape"
    return short, f"The {noun_of_all} {end} is {long}."


def overlap(scene, how, it):
    behind, before = overlapping(scene)
    shown, hidden = (before, behind) if how == "in front of" else (behind, before)
    if the(scene, it) is not hidden:
        raise DoubtError(f"nothing is {how} the {it}")
    return a(noun(shown)), f"The {shown['shape']} is {how} the {it}."


def is_in_front(scene, one, how, other):
    behind, before = overlapping(scene)
    front, rear = (one, other) if how == "in front of" else (other, one)
    truth = the(scene, front) is before and the(scene, rear) is behind
    return yes(truth, f"the {before['shape']} is in front of the {behind['shape']}")


def in_sky(scene, body):
    land = scene["background"]
    there = land["light"] and ("moon" if land["time"] == "night" else "sun")
    denial = f"there is no {body} in the sky" + (f", but there is the {there}" if there else "")
    return yes(there == body, f"the {body} is in the sky", denial)


def weather(scene):
    word = scene["background"]["weather"]
    if bool(scene["background"]["clouds"]) == (word == "clear"):
        raise DoubtError(f"it is {word} with clouds: {scene['background']['clouds']}")
    return word, f"The weather is {word}."


def line_of(scene, ordinal, name):
    line = sign(scene, name)["lines"][("first", "second").index(ordinal)]
    return line, f'The {ordinal} line says "{line}".'


def does_it_say(scene, name, guess):
    text = text_of(sign(scene, name))
    return yes(text == guess, f'the {name} says "{text}"', f'the {name} says "{text}", not "{guess}"')


def item(scene, word):
    price, good = (min if word == "cheapest" else max)((price, good) for good, price in prices(scene).items())
    return capital(good), f"The {word} item on the list is the {good}, at ${price}."


def together(scene, one, other):
    x, y = prices(scene)[one], prices(scene)[other]
    return f"${x + y}", f"The {one} costs ${x} and the {other} ${y}, together ${x + y}."


def cheaper(scene, one, other):
    x, y = prices(scene)[one], prices(scene)[other]
    return yes(x < y, f"the {one} costs ${x} and the {other} ${y}")


def is_open(scene, shop, hour):
    opens, closes = hours(scene)
    if not 0 <= int(hour) < 24 or int(hour) in (opens, closes):
        raise DoubtError(f"{hour}:00 is no such time, or just then it opens or closes")
    return yes(opens < int(hour) < closes, f"the {shop} is open from {opens}:00 to {closes}:00")


def how_long(scene):
    opens, closes = hours(scene)
    return str(closes - opens), f"From {opens}:00 to {closes}:00 it is open for {closes - opens} hours."


def meaning(scene):
    (word,) = lines(scene)
    english = only([notion[0].lower() for notion in NOTIONS if word in notion])
    return english, f'"{word}" is {language_of(word)} for "{english}".'


def odd_one(scene):
    name = only([name for name in ("shape", "colour") if len({thing[name] for thing in scene["things"]}) > 1])
    (common, _), (value, _) = Counter(thing[name] for thing in scene["things"]).most_common()
    odd = noun(the(scene, value))
    others, this = (plural(common), a(value)) if name == "shape" else (common, value)
    return f"the {odd}", f"All the others are {others}, but this one is {this}: the {odd} does not belong."


def step(scene, here, away):
    """The next thing in a direction."""
    there = [it for it in scene["things"] if it is not here and offset(it, here) == away]
    return min(there, key=lambda it: abs(it["x"] - here["x"]) + abs(it["y"] - here["y"]))


def walk(scene, it, across, along):
    middle = step(scene, the(scene, it), AWAY[f"to the {across} of"])
    end = step(scene, middle, AWAY["above" if along == "up" else "below"])
    steps = rf"One step to the {across} of the {it} is the (.+), and one step {along} from there is the (.+)\."

    def right(full):
        match = re.fullmatch(steps, full)
        return match and [the(scene, name) for name in match.groups()] == [middle, end]

    return f"the {noun(end)}", right


def pattern_of(scene):
    row = [noun(thing) for thing in sorted(scene["things"], key=lambda thing: thing["x"])]
    period = next(p for p in range(1, len(row)) if all(row[i] == row[i % p] for i in range(len(row))))
    if 2 * period > len(row):
        raise DoubtError("nothing repeats")
    following, unit = a(row[len(row) % period]), ", ".join(row[:period])
    return following, f"From left to right the row repeats {unit}. After {a(row[-1])} comes {following}."


def way(scene, it, other):
    here, there = the(scene, it), the(scene, other)
    across, down = offset(there, here)
    answer = f"{'down' if down > 0 else 'up'} and to the {'right' if across > 0 else 'left'}"
    return answer, f"The {it} is {told(*offset(here, there))} the {other}, so it would have to move {answer}."


def by_place(scene, word):
    things = in_reading_order(scene["things"])
    parts = [f"{place(it)} {a(it['shape']) if word == 'shape' else 'something ' + it['colour']}" for it in things]
    first = place(things[0])
    parts[0] = parts[0].replace(first, f"{capital(first)} there is")
    return None, f"{listed(parts)}."


def by_name(scene, word):
    name, order = ("shape", SHAPES) if word == "shape" else ("colour", list(COLOURS))
    things = sorted(in_reading_order(scene["things"]), key=lambda it: order.index(it[name]))
    return None, capital(", ".join(f"{it[name]} {place(it)}" for it in things)) + "."


# Each form of question with what answers it; the first that fits counts
ANSWERS = [(re.compile(pattern), answer) for pattern, answer in (
    (r"(?:What color is|What is the color of|Which color does) the background(?: have)?\?", lambda scene: (
        only(scene["background"]["names"]), f"The background is {only(scene['background']['names'])}.")),
    (rf"(?:Which shape is|What shape is|What is the) {COLOUR}(?: shape)?\?", lambda scene, colour: (
        the(scene, colour)["shape"], f"The {colour} shape is {a(the(scene, colour)['shape'])}.")),
    (r"What color are the letters on the (.*sign)\?", lambda scene, name: (
        sign(scene, name)["ink"], f"The letters are {sign(scene, name)['ink']}.")),
    (r"What color is the (.*sign)\?", lambda scene, name: (
        sign(scene, name)["board"], f"The {name} is {sign(scene, name)['board']}.")),
    (rf"Is the (.+) {COLOUR}\?", is_colour),
    (r"Do the (.+) and the (.+) have the same color\?", same_colour),
    (r"(?:Which image has|In which of the two images is there) (an? .+)\?", which_has),
    (r"Is there (an? .+) in both images\?", in_both),
    *drawn_facts.ANSWERS,
    (r"(?:Is there|Can you see|Does the image show) (something to eat)(?: in the image)?\?", presence),
    (r"(?:Is there|Can you see|Does the image show) an? (.+?)(?: in the image)?\?", presence),
    (r"(?:Which|What) colors (?:do|are) the shapes(?: have)?\?|List the colors of the shapes\.", all_colours),
    (r"(Which color is the) most common among the shapes\?", most_common),
    (r"(Most) of the shapes share which color\?", most_common),
    (r"(Which color) do more shapes have than any other\?", most_common),
    (r"(?:What color is|What is the color of|Which color does|Tell me the color of) the (.+?)(?: have)?[?.]",
     lambda scene, it: (the(scene, it)["colour"], f"The {it} is {the(scene, it)['colour']}.")),
    (r"How many shapes would be left if you took away (?:all (.+s)|the only (.+))\?", taken_away),
    (r"If (\w+) more (.+) (?:was|were) drawn, how many (.+) would there be\?", added),
    (r"How many more (.+) than (.+) are there\?", how_many_more),
    (r"How many differences are there between the two images\?", how_many_differences),
    (r"(?:How many|Count the|What is the number of) (.+?)(?: are there| can you see| are in the image)?[?.]",
     how_many),
    (r"Are there more (.+) than (.+)\?", more),
    (r"(?:Where|In which direction|How) is the (.+) (?:relative to|from|placed with respect to) the (.+)\?", relation),
    (rf"Is the (.+) {SIDE} the (.+)\?", is_it_there),
    (r"(?:Where in the image is|In which part of the image is|Where can) the (.+?)(?: be found)?\?",
     lambda scene, it: (place(the(scene, it)), f"The {it} is {place(the(scene, it))} of the image.")),
    (rf"{WHAT} is {PLACE} of the image\?", what_is_there),
    (rf"{WHAT} is directly {SIDE} the (.+)\?", neighbour),
    (rf"{WHAT}(?: is)? ({'|'.join(ENDS)})\?", furthest),
    (r"Which shape is (in front of|partly hidden by) the (.+)\?", overlap),
    (r"Is the (.+) (in front of|behind) the (.+)\?", is_in_front),
    (r"Where (?:is the scene set|does the scene take place)\?|What place is this\?", lambda scene: (
        SETTINGS[scene["background"]["setting"]][0],
        f"The scene is set {SETTINGS[scene['background']['setting']][1]}.")),
    (r"(?:What|At what) time of day is (?:it|the scene set)\?", lambda scene: (
        scene["background"]["time"], f"The scene is set {TIMES[scene['background']['time']]}.")),
    (r"(?:What is the weather like|How is the weather|What weather is shown)\?", weather),
    (r"(?:Can|Is) the (sun|moon) (?:be seen|in the sky)\?", in_sky),
    (r"What is written on the (first|second) line of the (.*sign)\?", line_of),
    (r"(?:What does|What is written on|Which text is on|Read the text on) the (.*sign)(?: say)?[?.]",
     lambda scene, name: (text_of(sign(scene, name)), f'The {name} says "{text_of(sign(scene, name))}".')),
    (r'Does the (.*sign) say "(.+)"\?', does_it_say),
    (r"(?:How much is|What does|What is the price of) the (\w+)(?: cost)?\?", lambda scene, good: (
        f"${prices(scene)[good]}", f"The price of the {good} is ${prices(scene)[good]}.")),
    (r"What is the (cheapest|most expensive) item on the list\?", item),
    (r"How much do the (\w+) and the (\w+) cost together\?", together),
    (r"Is the (\w+) cheaper than the (\w+)\?", cheaper),
    (r"When does the (\w+) open\?", lambda scene, shop: (
        f"{hours(scene)[0]}:00", f"The {shop} opens at {hours(scene)[0]}:00.")),
    (r"When does the (\w+) close\?", lambda scene, shop: (
        f"{hours(scene)[1]}:00", f"The {shop} closes at {hours(scene)[1]}:00.")),
    (r"What kind of place is the sign for\?", lambda scene: (
        lines(scene)[0].lower(), f"The sign is for the {lines(scene)[0].lower()}.")),
    (r"For how many hours is the \w+ open\?", how_long),
    (r"Is the (\w+) open at (\d+):00\?", is_open),
    (r"Where does the train go\?", lambda scene: (lines(scene)[0], f"The train goes to {lines(scene)[0]}.")),
    (r"(?:When|At what time) does the train (?:leave|depart)\?", lambda scene: (
        lines(scene)[1], f"The train leaves at {lines(scene)[1]}.")),
    (r"From which platform does the train leave\?", lambda scene: (
        lines(scene)[2].split()[1], f"The train leaves from {lines(scene)[2].lower()}.")),
    (r"(?:In which|Which) language is the sign(?: written in)?\?", lambda scene: (
        language_of(lines(scene)[0]), f"The sign is written in {language_of(lines(scene)[0])}.")),
    (r"What does the word on the sign mean in English\?", meaning),
    (r"Which shape does not belong with the others, and why\?", odd_one),
    (r"Start at the (.+), go one step to the (left|right) and then one step (up|down)\. "
     r"Which shape do you reach\?", walk),
    (r"The row of shapes follows a pattern\. Which shape comes next on the right\?", pattern_of),
    (r"Which way would you have to move the (.+) to bring it onto the (.+)\?", way),
    (r"Which (shape|color) (?:is in each part of the image|can be seen where)\?", by_place),
    (r"Go through the (shape|color)s part by part\.", by_place),
    (r"(?:Which|Where is each|Go through the) (shape|color)s?"
     r"(?: are in the image, and where| and say where they are)?[?.]", by_name),
    (r"What is the difference between the two images\?|What differs between the left and the right image\?"
     r"|Compare the two images: what has changed\?|Spot the difference between the left image and the right image\.",
     lambda left, right: (None, lambda full: tells_differences(left, right, full))),
    (r"Compare the two images in detail\.|What do the two images have in common, and in what do they differ\?"
     r"|Describe all similarities and differences of the two images\.", comparison),
    (r"What does the (left|right) image show\?", inventory),
    (r"Which image has more shapes\?", has_more),
)]  # fmt: skip
DESCRIBE = re.compile(
    r"Describe (?:the|this) image(?: in detail)?\.|What does the image show\?|What can be seen in the image\?"
    r"|Give a description of the picture\."
)


def wrong_answers(sample):
    """What is wrong with the answers and the description of a scene, a line for each."""
    pictures, found = sample.truth["pictures"], []
    if len(pictures) == 1 and not described(pictures[0], sample.description):
        found.append(f"{sample.id}: {sample.description}")
    for turn in sample.turns:
        try:
            fault = fault_of(pictures, turn)
        except (DoubtError, LookupError, ValueError, TypeError) as error:
            fault = f"{type(error).__name__}: {error}"
        if fault:
            found.append(f"{sample.id}: {turn.question!r} {turn.answer!r}: {fault}")
    return found


def fault_of(pictures, turn):
    question = turn.question.split("\n")[0]
    if DESCRIBE.fullmatch(question) and turn.correct is None:
        if described(pictures[0], turn.answer):
            return ""
        if not drawn_facts.is_drawn(pictures[0]):  # of one drawn thing, it also asks what that is
            return "not what there is"
    fitting_forms = ((match, answer) for form, answer in ANSWERS if (match := form.fullmatch(question)))
    match, answer = next(fitting_forms, (None, None))
    if match is None:
        return "a question that is not known"
    short, full = answer(*pictures, *match.groups())
    asks_for_it = turn.question.endswith(SHORT)
    if asks_for_it or (drawn_facts.is_drawn(pictures[0]) and turn.question == question and turn.correct is not None):
        return "" if turn.answer == turn.correct == short else f"should be {short!r}"
    if turn.question.endswith(LETTER):
        options = [line[3:] for line in turn.question.split("\n")[1:-1]]
        right = ["ABCD"[number] for number, option in enumerate(options) if option == short]
        sound = len(set(options)) == 4 and tuple(options) == turn.options
        return "" if sound and right == [turn.answer] == [turn.correct] else f"should be {short!r}"
    right = full(turn.answer) if callable(full) else full == turn.answer
    return "" if right and turn.correct is None else f"should be {full!r}"


def main():
    from fusionvl.synth.kinds import KINDS
    from fusionvl.synth.scene_sample import scene_sample

    names = [(split, number) for split in ("train", "held-out") for number in range(int(sys.argv[1]))]
    print("| kind | scenes | answers | wrong |\n|---|---|---|---|")
    for kind in KINDS:
        samples = [scene_sample(kind, number, split=split) for split, number in names]
        wrong = [line for sample in samples for line in wrong_answers(sample)]
        print(f"| `{kind}` | {len(samples):,} | {sum(len(it.turns) for it in samples):,} | {len(wrong)} |", flush=True)
        print(*wrong[:5], sep="\n", end="\n" if wrong else "", file=sys.stderr)


if __name__ == "__main__":
    main()
