"""English for what is in a scene: noun phrases, plurals, lists, places.

Knows the graph and words; asks nothing and describes nothing.
"""

from collections.abc import Sequence
from itertools import combinations

from fusionvl.synth.scenes.scene_graph import Scene, Thing

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_PLURALS = {
    "sheep": "sheep", "deer": "deer", "fish": "fish", "blowfish": "blowfish", "shrimp": "shrimp",
    "mouse": "mice", "wolf": "wolves",
    "die": "dice", "leaf": "leaves", "knife": "knives", "tomato": "tomatoes", "potato": "potatoes",
    "mango": "mangoes", "mosquito": "mosquitoes", "volcano": "volcanoes", "snowman": "snowmen",
}  # fmt: skip
_HISSING = ("s", "x", "ch", "sh")
_SILENT = ("hour",)  # words whose first letter is not heard
_ATTRIBUTES = ("size", "texture", "colour")  # in the order in which English puts them

DIRECTIONS = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
    "above left": "above and to the left of",
    "above right": "above and to the right of",
    "below left": "below and to the left of",
    "below right": "below and to the right of",
}
OPPOSITES = {"left": "right", "right": "left", "above": "below", "below": "above"}

PARTS = (
    "in the top left corner", "at the top", "in the top right corner",
    "on the left side", "in the center", "on the right side",
    "in the bottom left corner", "at the bottom", "in the bottom right corner",
)  # fmt: skip
"""What the nine parts of a picture are called, in reading order."""

_THIRDS = ((0.0, 0.3), (0.4, 0.6), (0.7, 1.0))  # what lies between two of them is in neither beyond doubt
_SIGN_PLACES = {1: ("",), 2: ("top ", "bottom "), 3: ("top ", "middle ", "bottom ")}


def a(phrase: str) -> str:
    """The phrase with its indefinite article."""
    vowel = phrase[0].lower() in "aeiou" or phrase.startswith(_SILENT)
    return f"{'an' if vowel else 'a'} {phrase}"


def plural(phrase: str) -> str:
    """A phrase that ends with a thing's name, for several of them."""
    *before, noun = phrase.split(" ")
    return " ".join([*before, _PLURALS.get(noun) or _regular_plural(noun)])


def _regular_plural(noun: str) -> str:
    if noun.endswith(_HISSING):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def counted(count: int, phrase: str) -> str:
    """`three red circles`, `one house`, `no stars`."""
    number = NUMBERS[count] if count < len(NUMBERS) else str(count)
    return f"{number} {phrase if count == 1 else plural(phrase)}"


def are(count: int) -> str:
    """The verb of so many: `is` or `are`."""
    return "is" if count == 1 else "are"


def listing(phrases: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} {last} {phrases[-1]}"


def sentence(text: str) -> str:
    """The text with a capital letter at the front and a full stop at the end, if it has none."""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else ".")


def noun_phrase(thing: Thing, attributes: Sequence[str] = ("texture", "colour")) -> str:
    """`large striped red star`, with those of the attributes that are to be told."""
    words = [getattr(thing, name) for name in _ATTRIBUTES if name in attributes]
    return " ".join([word for word in words if word != "plain"] + [thing.shape])


def reference(thing: Thing, things: Sequence[Thing], without: str = "") -> str | None:
    """The shortest phrase that fits this thing alone, as `the red star`; None if there is no such phrase.

    Args:
        thing: What to refer to.
        things: All there is, the thing included.
        without: An attribute not to tell, because it is asked for.
    """
    told = [name for name in ("colour", "texture", "size") if name != without and getattr(thing, name) != "plain"]
    for length in range(len(told) + 1):
        for attributes in combinations(told, length):
            phrase = noun_phrase(thing, attributes)
            if sum(noun_phrase(other, attributes) == phrase for other in things) == 1:
                return f"the {phrase}"
    return None


def part_of(thing: Thing) -> str | None:
    """The part of the picture that a thing is in, `in the top left corner`; None where that is not beyond doubt."""
    column, row = _third(thing.x), _third(thing.y)
    if column is None or row is None:
        return None
    reaches_middle = max(abs(thing.x - 0.5), abs(thing.y - 0.5)) < thing.diameter / 2
    return None if reaches_middle and (column, row) != (1, 1) else PARTS[3 * row + column]


def _third(share: float) -> int | None:
    return next((number for number, (least, most) in enumerate(_THIRDS) if least <= share <= most), None)


def sign_names(scene: Scene) -> list[str]:
    """What to call the signs, in their order: by place where there are several."""
    return [f"the {place}sign" for place in _SIGN_PLACES[len(scene.signs)]]
