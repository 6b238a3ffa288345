"""Landscapes: where, when and in what weather, with things that belong there.

Knows what goes together, in graph terms; draws nothing and asks nothing.
"""

from dataclasses import dataclass

from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.palette import Rgb, mixed, visible_on
from fusionvl.synth.scenes.placement import scattered
from fusionvl.synth.scenes.scene_graph import Box, Landscape, Scene, Thing
from fusionvl.synth.scenes.shapes import DARK
from fusionvl.synth.scenes.things import Split, pairs, shade

_DRY, _WET, _WHITE = ("clear", "cloudy"), ("clear", "cloudy", "rainy"), ("clear", "cloudy", "snowy")


@dataclass(frozen=True, slots=True)
class Setting:
    """A kind of place.

    Attributes:
        ground: The colour of its lower part by day.
        phrase: The place with its preposition.
        short: The same as a short answer.
        things: What may stand there.
        weathers: What weather it has.
    """

    ground: Rgb
    phrase: str
    short: str
    things: tuple[str, ...]
    weathers: tuple[str, ...]


SETTINGS = {
    "meadow": Setting((150, 200, 110), "in a green meadow", "in a meadow", ("house", "tree", "car"), _WET),
    "desert": Setting((228, 198, 136), "in a sandy desert", "in a desert", ("house", "car"), _DRY),
    "snowy field": Setting(
        (238, 243, 248), "in a snow-covered field", "in a snowy field", ("house", "tree", "car"), _WHITE
    ),
    "sea": Setting((88, 148, 196), "on the sea", "at sea", ("boat",), _WET),
    "mountains": Setting((132, 176, 108), "in front of mountains", "in the mountains", ("house", "tree"), _WET),
    "street": Setting((150, 150, 154), "on a city street", "on a city street", ("car",), _WET),
}
TIMES = {"day": "during the day", "sunset": "at sunset", "night": "at night"}
"""Each with its phrase."""

_NIGHT: Rgb = (12, 16, 40)


def ground_colour(setting: str, time: str) -> Rgb:
    """The ground's colour: darker at night, a little at sunset."""
    return mixed(SETTINGS[setting].ground, _NIGHT, {"day": 0.0, "sunset": 0.2, "night": 0.55}[time])


def landscape_scene(draws: Draws, split: Split) -> Scene:
    """A landscape with one to five things in it."""
    setting = draws.one_of(tuple(SETTINGS))
    weather = draws.one_of(SETTINGS[setting].weathers)
    time = draws.one_of(tuple(TIMES))
    diameters = [0.13] if weather == "clear" else [0.2] * draws.integer(2, 3)
    places = scattered(draws, Box(0.02, 0.0, 0.98, 0.27), diameters)
    in_sky = tuple(
        Box(x - size / 2, y - size / 2, x + size / 2, y + size / 2)
        for (x, y), size in zip(places, diameters, strict=True)
    )
    horizon = draws.between(0.46, 0.5)
    light, clouds = (in_sky[0], ()) if weather == "clear" else (None, in_sky)
    land = Landscape(setting, time, weather, horizon, light, clouds)
    return Scene(land, _things(draws, split, land))


def _things(draws: Draws, split: Split, land: Landscape) -> tuple[Thing, ...]:
    setting = SETTINGS[land.setting]
    colours = visible_on((ground_colour(land.setting, land.time), DARK))
    choice = pairs(split, colours, [name for name in setting.things if name != "tree"])
    wanted = draws.some_of(choice, draws.integer(1, min(3, len(choice))))
    if "tree" in setting.things:
        wanted += [("tree", "green")] * draws.integer(0, 5 - len(wanted))
    diameters = [draws.between(0.18, 0.21) for _ in wanted]
    places = scattered(draws, Box(0.02, land.horizon - 0.08, 0.98, 0.98), diameters)
    things = [
        Thing(shape, colour, shade(draws, colour), diameter, *place)
        for (shape, colour), diameter, place in zip(wanted, diameters, places, strict=True)
    ]
    return tuple(sorted(things, key=lambda thing: thing.y))
