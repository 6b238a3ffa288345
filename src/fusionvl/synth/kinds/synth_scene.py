"""SynthScene: where, when and in what weather a landscape is, and what is to be seen in it."""

from collections import Counter

from fusionvl.synth.kinds.kind import Kind
from fusionvl.synth.kinds.scene_question import SceneQuestion, yes_no
from fusionvl.synth.kinds.synth_count import how_many
from fusionvl.synth.kinds.synth_spatial import relation_questions
from fusionvl.synth.kinds.topic import Composed, aligned
from fusionvl.synth.kinds.written import Asked, conversation
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.landscapes import SETTINGS, TIMES, landscape_scene
from fusionvl.synth.scenes.palette import COLOURS
from fusionvl.synth.scenes.scene_graph import Landscape, Scene
from fusionvl.synth.scenes.things import Split
from fusionvl.synth.scenes.wording import a, are, counted, reference

_NOT_TOLD_APART = {"meadow": ("mountains",), "mountains": ("meadow",)}  # a meadow lies in front of the mountains
_WEATHERS = ("clear", "cloudy", "rainy", "snowy")


def landscapes(draws: Draws, split: Split) -> Composed:
    """A landscape with all questions about it."""
    scene = landscape_scene(draws, split)
    land = scene.background
    if not isinstance(land, Landscape):
        raise ValueError("questions about landscapes need one")
    questions = [_setting(land, draws), _time(land, draws), _weather(land, draws), *_sky(land, draws)]
    questions += [*_inventory(scene, land, draws), *_colours(scene, draws), *relation_questions(scene.things, draws)]
    return Composed(scene, questions)


def _setting(land: Landscape, draws: Draws) -> SceneQuestion:
    unlike = [name for name in SETTINGS if name not in (land.setting, *_NOT_TOLD_APART.get(land.setting, ()))]
    wrong = tuple(SETTINGS[name].short for name in draws.some_of(unlike, 3))
    text = draws.phrase(("Where is the scene set?", "Where does the scene take place?", "What place is this?"))
    setting = SETTINGS[land.setting]
    return SceneQuestion(text, setting.short, f"The scene is set {setting.phrase}.", wrong)


def _time(land: Landscape, draws: Draws) -> SceneQuestion:
    text = draws.phrase(("What time of day is it?", "At what time of day is the scene set?"))
    wrong = tuple(name for name in TIMES if name != land.time)
    return SceneQuestion(text, land.time, f"The scene is set {TIMES[land.time]}.", wrong)


def _weather(land: Landscape, draws: Draws) -> SceneQuestion:
    text = draws.phrase(("What is the weather like?", "How is the weather?", "What weather is shown?"))
    wrong = tuple(name for name in _WEATHERS if name != land.weather)
    return SceneQuestion(text, land.weather, f"The weather is {land.weather}.", wrong)


def _sky(land: Landscape, draws: Draws) -> list[SceneQuestion]:
    shown = None if land.light is None else "moon" if land.time == "night" else "sun"
    questions = []
    for body in ("sun", "moon"):
        denial = f"there is no {body} in the sky" + (f", but there is the {shown}" if shown else "")
        text = draws.phrase(("Can the {b} be seen?", "Is the {b} in the sky?"), b=body)
        questions.append(yes_no(text, body == shown, f"the {body} is in the sky", denial))
    if land.clouds:
        questions.append(how_many(draws, "cloud", len(land.clouds)))
    return questions


def _inventory(scene: Scene, land: Landscape, draws: Draws) -> list[SceneQuestion]:
    numbers = Counter(thing.shape for thing in scene.things)
    questions = [how_many(draws, shape, number) for shape, number in numbers.items()]
    for it in ("house", "car", "boat", "tree"):
        if (it, land.setting) == ("house", "street"):
            continue  # houses line the street, though none is a thing that can be asked about
        text = draws.phrase(("Is there {it} in the image?", "Can you see {it}?"), it=a(it))
        there = f"there {are(numbers[it])} {counted(numbers[it], it)} in the image"
        questions.append(yes_no(text, it in numbers, there, f"there is no {it} in the image"))
    return questions


def _colours(scene: Scene, draws: Draws) -> list[SceneQuestion]:
    questions = []
    for thing in scene.things:
        it = reference(thing, scene.things, without="colour")
        if it is not None and thing.shape != "tree":
            wrong = draws.others(COLOURS, thing.colour)
            text = draws.phrase(("What color is {it}?", "What is the color of {it}?"), it=it)
            questions.append(SceneQuestion(text, thing.colour, f"{it.capitalize()} is {thing.colour}.", wrong))
    return questions


SYNTH_SCENE = Kind("SynthScene", aligned(landscapes), conversation(Asked, 1, 3))
