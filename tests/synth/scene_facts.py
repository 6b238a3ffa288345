"""What is in a scene's graph, as plain values, and the words for it: what `scene_reading` reads answers from.

Shares no code with what draws and asks.
"""

import re
from collections import Counter
from importlib.resources import files
from itertools import pairwise

import yaml

from fusionvl.synth.scenes.lexicon import LANGUAGES, NOTIONS

PLACES = {
    (0, 0): "in the top left corner", (1, 0): "at the top", (2, 0): "in the top right corner",
    (0, 1): "on the left side", (1, 1): "in the center", (2, 1): "on the right side",
    (0, 2): "in the bottom left corner", (1, 2): "at the bottom", (2, 2): "in the bottom right corner",
}  # fmt: skip
PLACE = f"({'|'.join(PLACES.values())})"
NUMBERS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "13", "14",
)  # fmt: skip
AWAY = {"to the left of": (-1, 0), "to the right of": (1, 0), "above": (0, -1), "below": (0, 1)}
SIDE = f"({'|'.join(AWAY)})"
SETTINGS = {
    "meadow": ("in a meadow", "in a green meadow"), "desert": ("in a desert", "in a sandy desert"),
    "snowy field": ("in a snowy field", "in a snow-covered field"), "sea": ("at sea", "on the sea"),
    "mountains": ("in the mountains", "in front of mountains"), "street": ("on a city street", "on a city street"),
}  # fmt: skip
TIMES = {"day": "during the day", "sunset": "at sunset", "night": "at night"}
SEVERAL = {
    "deer": "deer", "sheep": "sheep", "fish": "fish", "blowfish": "blowfish", "shrimp": "shrimp", "mouse": "mice",
    "wolf": "wolves", "leaf": "leaves", "knife": "knives", "die": "dice", "snowman": "snowmen", "mango": "mangoes",
    "mosquito": "mosquitoes", "potato": "potatoes", "tomato": "tomatoes", "volcano": "volcanoes",
}  # fmt: skip
LISTED = yaml.safe_load((files("fusionvl.synth.scenes") / "drawn_things.yaml").read_text(encoding="utf-8"))
NAMED = [name.split(" ")[-1] for names in LISTED["kinds"].values() for name in names]
# Words that some other of the languages has, too. Found with a list of frequent words of each.
SHARED = (
    "PAIN", "PAN", "PANE", "LATTE", "MOST", "STRAND", "SORTIE", "ENTRÉE", "POMMES", "GARE", "PLAGE", "PLAYA", "PONTE",
    "JARDIN", "MERCATO", "STATION", "MARKET", "BRIDGE", "WATER",
)  # fmt: skip


class DoubtError(Exception):
    """Something cannot be said for certain."""


def only(found, what="such things"):
    if len(found) != 1:
        raise DoubtError(f"{len(found)} {what}")
    return found[0]


# Words


def a(phrase):
    return ("an " if phrase[0] in "aeiou" or phrase == "hourglass" else "a ") + phrase


def plural(phrase):
    before, space, word = phrase.rpartition(" ")
    if word not in SEVERAL:
        ending = "ies" if re.search("[^aeiou]y$", word) else "es" if re.search("(s|x|ch|sh)$", word) else "s"
        return before + space + (word[:-1] if ending == "ies" else word) + ending
    return before + space + SEVERAL[word]


def singular(phrase):
    before, space, word = phrase.rpartition(" ")
    one = word[:-2] if word == "crosses" else word.removesuffix("s")
    return before + space + next((name for name in NAMED if plural(name) == word), one)


def counted(number, phrase):
    return f"{NUMBERS[number]} {phrase if number == 1 else plural(phrase)}"


def be(number):
    return "is" if number == 1 else "are"


def there_are(number, phrase):
    return f"there {be(number)} {counted(number, phrase)}"


def listed(items):
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def items_of(text):
    return re.split(", | and ", text)


def capital(text):
    return text[0].upper() + text[1:]


def yes(truth, statement, denial=None):
    return ("yes", f"Yes, {statement}.") if truth else ("no", f"No, {denial or statement}.")


# What is in a graph


def noun(thing):
    return " ".join(word for word in (thing["texture"], thing["colour"], thing["shape"]) if word != "plain")


def nouns(scene):
    return [noun(thing) for thing in scene["things"]]


def fitting(scene, phrase):
    """The things that a phrase names or, where it is of attributes, those of which every word is true."""
    if named := [it for it in scene["things"] if it["shape"] == phrase]:
        return named
    names = ("shape", "colour", "size", "texture")
    return [it for it in scene["things"] if set(phrase.split()) <= {"shape", *(it[name] for name in names)}]


def the(scene, phrase):
    return only(fitting(scene, phrase), f"things are {phrase}")


def number_of(scene, phrase):
    if phrase in ("cloud", "sign"):
        return len(scene["signs"] if phrase == "sign" else scene["background"]["clouds"])
    return len(fitting(scene, phrase))


def sure(difference):
    """-1, 0 or 1, where that is beyond doubt."""
    if 0.06 < abs(difference) < 0.14:
        raise DoubtError(f"{difference} is neither aligned nor apart")
    return 0 if abs(difference) < 0.1 else 1 if difference > 0 else -1


def offset(thing, other):
    """Where a thing is from another: -1, 0 or 1 across and down."""
    return sure(thing["x"] - other["x"]), sure(thing["y"] - other["y"])


def told(across, down):
    words = [word for word, (x, y) in AWAY.items() if (x and x == across) or (y and y == down)]
    return " and ".join(sorted(words, key=lambda word: word.startswith("to")))


def place(thing):
    """Which of the picture's nine parts a thing is in; one that covers the middle is in the center, or in doubt."""
    where = int(thing["x"] * 3), int(thing["y"] * 3)
    if any(0.3 < thing[axis] < 0.4 or 0.6 < thing[axis] < 0.7 for axis in "xy"):
        raise DoubtError("between two parts of the picture")
    if where != (1, 1) and all(abs(thing[axis] - 0.5) < thing["diameter"] / 2 for axis in "xy"):
        raise DoubtError("in the middle, too")
    return PLACES[where]


def in_reading_order(things):
    return sorted(things, key=lambda it: (int(it["y"] * 3), it["x"]))


def overlapping(scene):
    """What is behind and what is in front of it: two things whose squares meet, the later one in front."""
    pairs = [(one, other) for i, one in enumerate(scene["things"]) for other in scene["things"][i + 1 :]]
    reach = [(one["diameter"] + other["diameter"]) / 2 for one, other in pairs]
    near = [max(abs(one[axis] - other[axis]) for axis in "xy") for one, other in pairs]
    return only([pair for pair, much, far in zip(pairs, reach, near, strict=True) if far < much], "overlaps")


def text_of(sign):
    return " ".join(sign["lines"])


def signs_by_name(scene):
    """Each sign by its place, as `top sign`."""
    signs = sorted(scene["signs"], key=lambda sign: sign["box"]["top"])
    if any(upper["box"]["bottom"] > lower["box"]["top"] for upper, lower in pairwise(signs)):
        raise DoubtError("signs do not stand one below the other")
    names = {1: ["sign"], 2: ["top sign", "bottom sign"], 3: ["top sign", "middle sign", "bottom sign"]}[len(signs)]
    return dict(zip(names, signs, strict=True))


def sign(scene, name):
    """The sign of a place or a colour."""
    named = signs_by_name(scene)
    return named[name] if name in named else only([it for it in scene["signs"] if f"{it['board']} sign" == name])


def lines(scene):
    return only(scene["signs"])["lines"]


def prices(scene):
    return {good.lower(): int(price) for good, price in (line.split(" $") for line in lines(scene))}


def hours(scene):
    """When what is on the sign opens and closes."""
    return [int(time.removesuffix(":00")) for time in lines(scene)[1].split("-")]


def language_of(word):
    if word in SHARED:
        raise DoubtError(f"{word} is a word of other languages, too")
    return only([LANGUAGES[number] for notion in NOTIONS for number, it in enumerate(notion) if it == word])


# Two pictures


def differences(left, right):
    """The things at each place where two pictures are not the same: on the left and on the right, None where none."""
    places = {(round(it["x"], 6), round(it["y"], 6)): [it, None] for it in left["things"]}
    for it in right["things"]:
        places.setdefault((round(it["x"] - 0.51, 6), round(it["y"], 6)), [None, None])[1] = it
    return [pair for pair in places.values() if None in pair or noun(pair[0]) != noun(pair[1])]


def sentences(left, right):
    """What may be said of each difference, from either side, with what it is in short."""
    said = {}
    for one, other in differences(left, right):
        for (side, it), (other_side, its) in ((("left", one), ("right", other)), (("right", other), ("left", one))):
            if it and not its:
                told_of_it = f"There is {a(noun(it))} in the {side} image, but not in the {other_side} one."
                said[told_of_it] = f"the presence of the {noun(it)}"
            elif it and it["shape"] == its["shape"]:
                now = f"is {its['colour']} in the {other_side} one"
                told_of_it = f"The {it['shape']} that is {it['colour']} in the {side} image {now}."
                said[told_of_it] = f"the color of one {it['shape']}"
            elif it:
                told_of_it = f"Where the {side} image has {a(noun(it))}, the {other_side} one has {a(noun(its))}."
                said[told_of_it] = f"the form of one {it['colour']} shape"
    return said


def tells_differences(left, right, text):
    """Whether a text says each difference once and nothing else."""
    said = [sentence.strip() for sentence in re.findall(r"[^.]+\.", text)]
    return set(said) <= sentences(left, right).keys() and len(set(said)) == len(said) == len(differences(left, right))


# Descriptions


def behind(background):
    names = background["names"]
    return {
        "plain": f"a plain {names[0]} background",
        "fading": f"a background that fades from {names[0]} at the top to {names[-1]} at the bottom",
        "checked": f"a checkered background in {names[0]} and {names[-1]}",
    }[background["style"]]


def described(scene, text):
    """Whether a description says all there is, and nothing else."""
    if "setting" in scene["background"]:
        return text == landscape(scene)
    if scene["signs"]:
        named = signs_by_name(scene).items()
        each = [f'The {name} is {it["board"]} and says "{text_of(it)}" in {it["ink"]} letters.' for name, it in named]
        number = "a sign" if len(each) == 1 else counted(len(each), "sign")
        return text == " ".join([f"The image shows {number} on {behind(scene['background'])}.", *each])
    return things_described(scene, text)


def landscape(scene):
    land, numbers = scene["background"], Counter(nouns(scene))
    clouds = counted(len(land["clouds"]), "cloud")
    falling = {"rainy": "raining", "snowy": "snowing"}
    if land["weather"] in falling:
        sky = f"It is {falling[land['weather']]} from {clouds}"
    else:
        sky = {"clear": "The sky is clear", "cloudy": f"There are {clouds} in the sky"}[land["weather"]]
    light = {"day": "the sun is shining", "sunset": "the sun is orange", "night": "the moon is out"}[land["time"]]
    each = [counted(number, what.replace("green tree", "tree")) for what, number in numbers.items()]
    things = f"There {be(next(iter(numbers.values())))} {listed(each)}."
    where = f"The scene is set {SETTINGS[land['setting']][1]} {TIMES[land['time']]}."
    return f"{where} {sky}{f' and {light}' if land['light'] else ''}. {things}"


def things_described(scene, text):
    numbers, back = Counter(nouns(scene)), behind(scene["background"])
    if match := re.fullmatch(rf"On {back} there (is|are) (.+)\.", text):
        said = dict(item.split(" ", 1)[::-1] for item in items_of(match[2]))
        right = {what if number == 1 else plural(what): NUMBERS[number] for what, number in numbers.items()}
        return said == right and (match[1] == "is") == (next(iter(said.values())) == "one")
    sized = len({thing["size"] for thing in scene["things"]}) > 1
    right = [a(f"{thing['size']} {noun(thing)}" if sized else noun(thing)) for thing in scene["things"]]
    one, several = ("thing", "things") if any("pick" in it for it in scene["things"]) else ("shape", "shapes")
    opening = rf"The image shows {NUMBERS[len(right)]} {one if len(right) == 1 else several} on {back}\. "
    if match := re.fullmatch(rf"{opening}There is (.+)\.", text):
        return sorted(items_of(match[1])) == sorted(
            f"{what} {place(thing)}" for what, thing in zip(right, scene["things"], strict=True)
        )
    front = r"(?: The (\w+) is in front of the (\w+)\.)?"
    match = re.fullmatch(rf"{opening}(?:They are|These are|It is) ([^.]+)\.{front}", text)
    try:
        before, rear = (thing["shape"] for thing in reversed(overlapping(scene)))
    except DoubtError:
        before = rear = None
    return bool(match) and sorted(items_of(match[1])) == sorted(right) and match.groups()[1:] == (before, rear)
