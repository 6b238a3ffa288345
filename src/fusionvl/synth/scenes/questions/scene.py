"""Questions about landscapes: where, when, in what weather, and what is to be seen."""

from collections import Counter

from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.palette import COLOURS
from fusionvl.synth.scenes.questions.count import how_many
from fusionvl.synth.scenes.questions.question import Question, phrased, yes_no
from fusionvl.synth.scenes.questions.spatial import relation_questions
from fusionvl.synth.scenes.scene_graph import Landscape, Scene
from fusionvl.synth.scenes.scenery import SETTINGS
from fusionvl.synth.scenes.wording import a, counted, reference

_SETTING_ANSWERS = {
    "meadow": "in a meadow", "desert": "in a desert", "snowy field": "in a snowy field", "sea": "at sea",
    "mountains": "in the mountains", "street": "on a city street",
}  # fmt: skip
_NOT_TOLD_APART = {"meadow": ("mountains",), "mountains": ("meadow",)}  # a meadow lies in front of the mountains
TIME_PHRASES = {"day": "during the day", "sunset": "at sunset", "night": "at night"}
WEATHER_PHRASES = {"clear": "clear", "cloudy": "cloudy", "rainy": "rainy", "snowy": "snowy"}


def scene_questions(scene: Scene, draws: Draws) -> list[Question]:
    """All questions about a landscape."""
    land = scene.background
    if not isinstance(land, Landscape):
        raise ValueError("scene_questions needs a landscape")
    questions = [_setting(land, draws), _time(land, draws), _weather(land, draws), *_sky(land, draws)]
    questions += _inventory(scene, draws)
    questions += _colours(scene, draws)
    questions += relation_questions(scene.things, draws)
    return questions


def _setting(land: Landscape, draws: Draws) -> Question:
    others = [name for name in SETTINGS if name not in (land.setting, *_NOT_TOLD_APART.get(land.setting, ()))]
    wrong = tuple(_SETTING_ANSWERS[name] for name in draws.some_of(others, 3))
    text = phrased(draws, ("Where is the scene set?", "Where does the scene take place?", "What place is this?"))
    return Question(
        "scene", text, _SETTING_ANSWERS[land.setting], f"The scene is set {SETTINGS[land.setting].phrase}.", wrong
    )


def _time(land: Landscape, draws: Draws) -> Question:
    text = phrased(draws, ("What time of day is it?", "At what time of day is the scene set?"))
    wrong = tuple(name for name in TIME_PHRASES if name != land.time)
    return Question("scene", text, land.time, f"The scene is set {TIME_PHRASES[land.time]}.", wrong)


def _weather(land: Landscape, draws: Draws) -> Question:
    text = phrased(draws, ("What is the weather like?", "How is the weather?", "What weather is shown?"))
    wrong = tuple(name for name in WEATHER_PHRASES if name != land.weather)
    return Question("scene", text, land.weather, f"The weather is {WEATHER_PHRASES[land.weather]}.", wrong)


def _sky(land: Landscape, draws: Draws) -> list[Question]:
    shown = None if land.light is None else "moon" if land.time == "night" else "sun"
    questions = []
    for body in ("sun", "moon"):
        denial = f"there is no {body} in the sky" + (f", but there is the {shown}" if shown else "")
        text = phrased(draws, ("Can the {b} be seen?", "Is the {b} in the sky?"), b=body)
        questions.append(yes_no("scene", text, body == shown, f"the {body} is in the sky", denial))
    if land.clouds:
        questions.append(how_many(draws, "cloud", len(land.clouds)))
    return questions


def _inventory(scene: Scene, draws: Draws) -> list[Question]:
    counts = Counter(thing.shape for thing in scene.things)
    questions = [how_many(draws, shape, count) for shape, count in counts.items()]
    for it in ("house", "car", "boat", "tree"):
        text = phrased(draws, ("Is there {it} in the image?", "Can you see {it}?"), it=a(it))
        there = f"there {'is' if counts[it] == 1 else 'are'} {counted(counts[it], it)} in the image"
        questions.append(yes_no("scene", text, it in counts, there, f"there is no {it} in the image"))
    return questions


def _colours(scene: Scene, draws: Draws) -> list[Question]:
    questions = []
    for thing in scene.things:
        it = reference(thing, scene.things, without="colour")
        if it is not None and thing.shape != "tree":
            wrong = tuple(draws.some_of([name for name in COLOURS if name != thing.colour], 3))
            text = phrased(draws, ("What color is {it}?", "What is the color of {it}?"), it=it)
            questions.append(Question("scene", text, thing.colour, f"{it.capitalize()} is {thing.colour}.", wrong))
    return questions
