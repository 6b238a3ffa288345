"""What is in a scene of drawn things, and the words for it: the part of `scene_facts` that no other kind needs.

Shares the lists of names with what draws and asks, and no code.
"""

from collections import Counter
from itertools import pairwise

from scene_facts import LISTED, DoubtError, a, be, capital, listed, only, sure, the, there_are, yes

KIND = {name: kind for kind, names in LISTED["kinds"].items() for name in names}
CALLED = {"animal": "animal", "food": "something to eat", "vehicle": "vehicle", "instrument": "musical instrument"}
HALF_VEHICLES = {"shopping cart", "parachute", "suitcase", "ice skate"}


def is_drawn(scene):
    return any("pick" in thing for thing in scene["things"])


def kinds_in(scene):
    return Counter(KIND[thing["shape"]] for thing in scene["things"])


def near(name, other):
    """Whether two names may be taken for one another."""
    return any({name, other} <= set(group) for group in LISTED["mistakable"])


def number_drawn(scene, phrase):
    """How many things a phrase fits, beyond doubt."""
    shown = [thing["shape"] for thing in scene["things"]]
    if phrase == "thing":
        return len(shown)
    if phrase in KIND:
        if doubtful := [name for name in shown if name != phrase and near(phrase, name)]:
            raise DoubtError(f"{doubtful} may be called {phrase}")
        return shown.count(phrase)
    kind, kinds = only([kind for kind, called in CALLED.items() if called == phrase]), kinds_in(scene)
    if kind == "food" and not kinds["food"] and (kinds["animal"] or kinds["plant"]):
        raise DoubtError("some would eat it")
    if kind == "vehicle" and HALF_VEHICLES.intersection(shown):
        half = HALF_VEHICLES.intersection(shown)
        raise DoubtError(f"{half} may be called vehicles")
    return kinds[kind]


def drawn_presence(scene, phrase):
    beyond_doubt = [kind for kind in kinds_in(scene) if CALLED.get(kind) == phrase]
    there = beyond_doubt or number_drawn(scene, phrase)
    if phrase == "something to eat":
        return yes(there, "there is something to eat", "there is nothing to eat")
    return yes(there, f"there is {a(phrase)}", f"there is no {phrase}")


def what_it_is(scene):
    name = only(scene["things"])["shape"]
    return a(name), f"This is {a(name)}."


def from_left(scene):
    things = sorted(scene["things"], key=lambda it: it["x"])
    if not all(sure(right["x"] - left["x"]) for left, right in pairwise(things)):
        raise DoubtError("one stands above another")
    names = listed([a(it["shape"]) for it in things])
    return names, f"From left to right there {be(len(things))} {names}."


def which_is_bigger(scene, word, *names):
    one, other = (the(scene, name) for name in names)
    small, big = sorted((one, other), key=lambda it: it["diameter"])
    if big["diameter"] < 1.5 * small["diameter"] or {big["shape"], small["shape"]} & set(LISTED["slender"]):
        raise DoubtError("not bigger by far")
    right, wrong = (big, small) if word == "bigger" else (small, big)
    return f"the {right['shape']}", f"In the image the {right['shape']} is {word} than the {wrong['shape']}."


def drawn_count(scene, phrase):
    number = number_drawn(scene, phrase)
    return str(number), f"{capital(there_are(number, phrase))} in the image."


ANSWERS = (
    (r"What is this\?|What does the image show\?|What can be seen in the image\?|Name the thing in the image\.",
     what_it_is),
    (r"Name the things from left to right\.|What can be seen in the image, from left to right\?"
     r"|List all things in the image from left to right\.", from_left),
    (r"Which is (bigger|smaller) in the image, the (.+) or the (.+)\?", which_is_bigger),
)  # fmt: skip
