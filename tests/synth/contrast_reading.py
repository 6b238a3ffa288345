"""What one would answer about two pictures side by side: the part of `scene_reading` that contrasts need."""

from collections import Counter

from scene_facts import (
    a,
    capital,
    differences,
    items_of,
    listed,
    noun,
    nouns,
    only,
    sentences,
    tells_differences,
    there_are,
    yes,
)  # fmt: skip


def comparison(left, right):
    shared = sorted((Counter(nouns(left)) & Counter(nouns(right))).elements())
    same = f"Both images show {listed(list(map(a, shared)))} in the same places, and they have the same background."
    opening = same if shared else "Both images have the same background."
    opening += f" {capital(there_are(len(differences(left, right)), 'difference'))}. "
    alike = left["background"] == right["background"]
    return None, lambda full: alike and full[: len(opening)] == opening and tells_differences(
        left, right, full[len(opening) :]
    )  # fmt: skip


def inventory(left, right, side):
    things = sorted((left if side == "left" else right)["things"], key=lambda it: (it["y"], it["x"]))
    if not things:
        return None, f"The {side} image shows no shapes."
    number = "1 shape" if len(things) == 1 else f"{len(things)} shapes"
    return None, f"The {side} image shows {number}: {listed([a(noun(it)) for it in things])}."


def sides(left, right, what):
    return [side for side, scene in (("left", left), ("right", right)) if what in map(a, nouns(scene))]


def which_has(left, right, what):
    side = only(sides(left, right, what))
    return f"the {side} one", f"Only the {side} image has {what}."


def in_both(left, right, what):
    found = sides(left, right, what)
    return yes(len(found) == 2, f"both images have {what}", f"only the {found[0]} image has {what}")


def how_many_differences(left, right):
    number = len(differences(left, right))
    start = f"{capital(there_are(number, 'difference'))}: "
    whats = set(sentences(left, right).values())
    return str(number), lambda full: full.startswith(start) and set(items_of(full[len(start) : -1])) <= whats


def has_more(left, right):
    x, y = len(left["things"]), len(right["things"])
    side = only([side for side, there in (("left", x > y), ("right", y > x)) if there])
    return f"the {side} one", f"The {side} image has more shapes: {x} on the left, {y} on the right."
