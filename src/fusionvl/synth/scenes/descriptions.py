"""Exact descriptions of scenes: everything that is said is in the graph, and everything in the graph is said.

Knows the graph and English; asks nothing.
"""

from collections import Counter

from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.questions.text import said, sign_names
from fusionvl.synth.scenes.scene_graph import Background, Landscape, Scene, Sign, Thing
from fusionvl.synth.scenes.scenery import SETTINGS
from fusionvl.synth.scenes.wording import NUMBERS, a, counted, listing, noun_phrase, place_phrase, sentence

REQUESTS = (
    "Describe the image.",
    "Describe this image in detail.",
    "What does the image show?",
    "What can be seen in the image?",
    "Give a description of the picture.",
)

_TIMES = {"day": "during the day", "sunset": "at sunset", "night": "at night"}
_SKIES = {
    "clear": "The sky is clear",
    "cloudy": "There are {clouds} in the sky",
    "rainy": "It is raining from {clouds}",
    "snowy": "It is snowing from {clouds}",
}


def describe(scene: Scene, draws: Draws) -> str:
    """A paragraph about a scene."""
    if isinstance(scene.background, Landscape):
        parts = [_landscape(scene.background), _groups(scene.things)]
    else:
        parts = [_overview(scene, draws), *_signs(scene)]
    return " ".join(part for part in parts if part)


def backdrop(background: Background) -> str:
    """`a plain white background`, `a background fading from ... to ...`."""
    if background.style == "plain":
        return f"a plain {background.names[0]} background"
    first, second = background.names
    if background.style == "fading":
        return f"a background that fades from {first} at the top to {second} at the bottom"
    return f"a checkered background in {first} and {second}"


def _overview(scene: Scene, draws: Draws) -> str:
    if not isinstance(scene.background, Background):
        return ""
    behind = backdrop(scene.background)
    if not scene.things:
        return "" if scene.signs else sentence(f"the image shows nothing but {behind}")
    counts = Counter(noun_phrase(thing) for thing in scene.things)
    if max(counts.values()) > 1 or len(scene.things) > 6:
        return sentence(f"on {behind} there {_are(scene.things)} {_counted(counts)}")
    return _one_by_one(scene, behind, draws)


def _one_by_one(scene: Scene, behind: str, draws: Draws) -> str:
    sizes = {thing.size for thing in scene.things}
    attributes = ("size", "texture", "colour") if len(sizes) > 1 else ("texture", "colour")
    things = sorted(scene.things, key=lambda thing: (round(thing.y * 3), thing.x))
    named = [(a(noun_phrase(thing, attributes)), place_phrase(thing, scene.frame)) for thing in things]
    noun = "shape" if len(things) == 1 else "shapes"
    opening = f"the image shows {NUMBERS[len(things)]} {noun} on {behind}"
    overlap = _overlaps(scene)
    if all(place is not None for _, place in named) and not overlap:
        placed = [f"{what} {place}" for what, place in named]
        return f"{sentence(opening)} {sentence(f'there is {listing(placed)}')}"
    verb = draws.one_of(("They are", "These are")) if len(things) > 1 else "It is"
    return " ".join([sentence(opening), f"{verb} {listing([what for what, _ in named])}.", *overlap])


def _overlaps(scene: Scene) -> list[str]:
    """What is in front of what, a sentence each."""
    return [
        sentence(f"the {before.shape} is in front of the {behind.shape}")
        for index, behind in enumerate(scene.things)
        for before in scene.things[index + 1 :]
        if before.box.meets(behind.box)
    ]


def _counted(counts: Counter[str]) -> str:
    return listing([counted(count, what) for what, count in counts.items()])


def _are(things: tuple[Thing, ...]) -> str:
    first = noun_phrase(things[0])
    return "is" if sum(noun_phrase(thing) == first for thing in things) == 1 else "are"


def _landscape(land: Landscape) -> str:
    where = f"the scene is set {SETTINGS[land.setting].phrase} {_TIMES[land.time]}"
    sky = _SKIES[land.weather].format(clouds=counted(len(land.clouds), "cloud"))
    light = ""
    if land.light is not None:
        light = {"day": " and the sun is shining", "sunset": " and the sun is low", "night": " and the moon is out"}[
            land.time
        ]
    return f"{sentence(where)} {sky}{light}."


def _groups(things: tuple[Thing, ...]) -> str:
    if not things:
        return ""
    counts = Counter(thing.shape if thing.shape == "tree" else noun_phrase(thing) for thing in things)
    verb = "is" if next(iter(counts.values())) == 1 else "are"
    return f"There {verb} {_counted(counts)}."


def _signs(scene: Scene) -> list[str]:
    if not isinstance(scene.background, Background) or not scene.signs:
        return []
    count = counted(len(scene.signs), "sign").replace("one", "a")
    opening = sentence(f"the image shows {count} on {backdrop(scene.background)}")
    return [opening, *(_sign(name, sign) for name, sign in zip(sign_names(scene), scene.signs, strict=True))]


def _sign(name: str, sign: Sign) -> str:
    return f'{name.capitalize()} is {sign.board} and says "{said(sign)}" in {sign.ink} letters.'
