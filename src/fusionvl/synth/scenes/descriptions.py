"""Exact descriptions of scenes: everything that is said is in the graph, and everything in the graph is said.

Knows the graph and English; asks nothing.
"""

from collections import Counter

from fusionvl.synth.scenes.drawn_things import DrawnThing
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.landscapes import SETTINGS, TIMES
from fusionvl.synth.scenes.scene_graph import Background, Landscape, Scene, Thing
from fusionvl.synth.scenes.wording import (
    NUMBERS,
    a,
    are,
    counted,
    listing,
    noun_phrase,
    part_of,
    plural,
    sentence,
    sign_names,
)

REQUESTS = (
    "Describe the image.",
    "Describe this image in detail.",
    "What does the image show?",
    "What can be seen in the image?",
    "Give a description of the picture.",
)

_SKIES = {
    "clear": "The sky is clear",
    "cloudy": "There are {clouds} in the sky",
    "rainy": "It is raining from {clouds}",
    "snowy": "It is snowing from {clouds}",
}
_LIGHTS = {"day": " and the sun is shining", "sunset": " and the sun is orange", "night": " and the moon is out"}


def describe(scene: Scene, draws: Draws) -> str:
    """A paragraph about a scene."""
    if isinstance(scene.background, Landscape):
        return f"{_landscape(scene.background)} {_groups(scene.things)}"
    behind = _backdrop(scene.background)
    return _signs(scene, behind) if scene.signs else _things(scene, behind, draws)


def inventory(scene: Scene, side: str) -> str:
    """What one of two images shows, as a sentence."""
    if not scene.things:
        return f"The {side} image shows no shapes."
    phrases = [a(noun_phrase(thing)) for thing in sorted(scene.things, key=lambda thing: (thing.y, thing.x))]
    total = f"{len(phrases)} {plural('shape') if len(phrases) > 1 else 'shape'}"
    return sentence(f"the {side} image shows {total}: {listing(phrases)}")


def _backdrop(background: Background) -> str:
    """`a plain white background`, `a background that fades from ... to ...`."""
    if background.style == "plain":
        return f"a plain {background.names[0]} background"
    first, second = background.names
    if background.style == "fading":
        return f"a background that fades from {first} at the top to {second} at the bottom"
    return f"a checkered background in {first} and {second}"


def _things(scene: Scene, behind: str, draws: Draws) -> str:
    if not scene.things:
        return sentence(f"the image shows nothing but {behind}")
    counts = Counter(noun_phrase(thing) for thing in scene.things)
    if max(counts.values()) > 1 or len(scene.things) > 6:
        return sentence(f"on {behind} there {_all_counted(counts)}")
    return _one_by_one(scene, behind, draws)


def _one_by_one(scene: Scene, behind: str, draws: Draws) -> str:
    sizes = {thing.size for thing in scene.things}
    attributes = ("size", "texture", "colour") if len(sizes) > 1 else ("texture", "colour")
    things = sorted(scene.things, key=lambda thing: (round(thing.y * 3), thing.x))
    named = [(a(noun_phrase(thing, attributes)), part_of(thing)) for thing in things]
    noun = "thing" if isinstance(things[0], DrawnThing) else "shape"
    noun = noun if len(things) == 1 else plural(noun)
    opening = sentence(f"the image shows {NUMBERS[len(things)]} {noun} on {behind}")
    overlaps = _overlaps(scene)
    if all(place is not None for _, place in named) and not overlaps:
        placed = [f"{what} {place}" for what, place in named]
        return f"{opening} {sentence(f'there is {listing(placed)}')}"
    verb = draws.one_of(("They are", "These are")) if len(things) > 1 else "It is"
    return " ".join([opening, f"{verb} {listing([what for what, _ in named])}.", *overlaps])


def _overlaps(scene: Scene) -> list[str]:
    """What is in front of what, a sentence each."""
    return [
        sentence(f"the {before.shape} is in front of the {behind.shape}")
        for index, behind in enumerate(scene.things)
        for before in scene.things[index + 1 :]
        if before.box.meets(behind.box)
    ]


def _all_counted(counts: Counter[str]) -> str:
    """`is one red star and two blue rings`: the verb is that of what comes first."""
    return f"{are(next(iter(counts.values())))} {listing([counted(count, what) for what, count in counts.items()])}"


def _landscape(land: Landscape) -> str:
    where = sentence(f"the scene is set {SETTINGS[land.setting].phrase} {TIMES[land.time]}")
    sky = _SKIES[land.weather].format(clouds=counted(len(land.clouds), "cloud"))
    return f"{where} {sky}{_LIGHTS[land.time] if land.light else ''}."


def _groups(things: tuple[Thing, ...]) -> str:
    counts = Counter(thing.shape if thing.shape == "tree" else noun_phrase(thing) for thing in things)
    return f"There {_all_counted(counts)}."


def _signs(scene: Scene, behind: str) -> str:
    count = counted(len(scene.signs), "sign").replace("one", "a")
    named = zip(sign_names(scene), scene.signs, strict=True)
    told = [
        f'{name.capitalize()} is {sign.board} and says "{sign.text}" in {sign.ink} letters.' for name, sign in named
    ]
    return " ".join([sentence(f"the image shows {count} on {behind}"), *told])
