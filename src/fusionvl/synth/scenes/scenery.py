"""Landscapes: where, when and in what weather, with things that belong there.

Knows what goes together, in graph terms; draws nothing and says nothing.
"""

from dataclasses import dataclass

from fusionvl.synth.scenes.combinations import Split, pairs
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.palette import Rgb, visible_on
from fusionvl.synth.scenes.placement import scattered
from fusionvl.synth.scenes.sampling import different_pairs, shade
from fusionvl.synth.scenes.scene_graph import Box, Landscape, Scene, Thing


@dataclass(frozen=True, slots=True)
class Setting:
    """A kind of place.

    Attributes:
        ground: The colour of its lower part by day.
        phrase: The place with its preposition.
        things: What may stand there.
        weathers: What weather it has.
    """

    ground: Rgb
    phrase: str
    things: tuple[str, ...]
    weathers: tuple[str, ...]


SETTINGS = {
    "meadow": Setting((150, 200, 110), "in a green meadow", ("house", "tree", "car"), ("clear", "cloudy", "rainy")),
    "desert": Setting((228, 198, 136), "in a sandy desert", ("house", "car"), ("clear", "cloudy")),
    "snowy field": Setting(
        (238, 243, 248), "in a snow-covered field", ("house", "tree", "car"), ("clear", "cloudy", "snowy")
    ),
    "sea": Setting((88, 148, 196), "on the sea", ("boat",), ("clear", "cloudy", "rainy")),
    "mountains": Setting((132, 176, 108), "in front of mountains", ("house", "tree"), ("clear", "cloudy", "rainy")),
    "street": Setting((150, 150, 154), "on a city street", ("car",), ("clear", "cloudy", "rainy")),
}
TIMES = ("day", "sunset", "night")

_NIGHT: Rgb = (12, 16, 40)


def ground_colour(setting: str, time: str) -> Rgb:
    """The ground's colour: darker at night, a little at sunset."""
    share = {"day": 0.0, "sunset": 0.2, "night": 0.55}[time]
    red, green, blue = (round(part * (1 - share) + night * share) for part, night in _paired(setting))
    return red, green, blue


def _paired(setting: str) -> list[tuple[int, int]]:
    return list(zip(SETTINGS[setting].ground, _NIGHT, strict=True))


def draw_scenery(draws: Draws, split: Split) -> Scene:
    """A landscape with one to five things in it."""
    setting = draws.one_of(tuple(SETTINGS))
    weather = draws.one_of(SETTINGS[setting].weathers)
    time = draws.one_of(TIMES)
    sky = [Box(0.02, 0.0, 0.98, 0.27)]
    diameters = [0.13] if weather == "clear" else [0.2] * draws.integer(2, 3)
    boxes = [
        Box(x - size / 2, y - size / 2, x + size / 2, y + size / 2)
        for (x, y), size in zip(scattered(draws, sky[0], diameters), diameters, strict=True)
    ]
    landscape = Landscape(
        setting=setting,
        time=time,
        weather=weather,
        horizon=draws.between(0.46, 0.5),
        light=boxes[0] if weather == "clear" else None,
        clouds=() if weather == "clear" else tuple(boxes),
    )
    return Scene(landscape, _things(draws, split, landscape))


def _things(draws: Draws, split: Split, landscape: Landscape) -> tuple[Thing, ...]:
    setting = SETTINGS[landscape.setting]
    colours = visible_on((ground_colour(landscape.setting, landscape.time), (52, 48, 50)))
    built = [name for name in setting.things if name != "tree"]
    choice = pairs(split, colours, built)
    chosen = different_pairs(draws, choice, draws.integer(1, min(3, len(choice))))
    trees = draws.integer(0, 5 - len(chosen)) if "tree" in setting.things else 0
    diameters = [draws.between(0.18, 0.21) for _ in range(len(chosen) + trees)]
    ground = Box(0.02, landscape.horizon - 0.08, 0.98, 0.98)
    places = scattered(draws, ground, diameters)
    wanted = [*chosen, *[("tree", "green")] * trees]
    things = [
        Thing(shape, colour, shade(draws, colour), diameter, x, y)
        for (shape, colour), diameter, (x, y) in zip(wanted, diameters, places, strict=True)
    ]
    return tuple(sorted(things, key=lambda thing: thing.y))
