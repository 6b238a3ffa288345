"""The pictures show what the answers say: recomputed from pixels, and from the questions' own words."""

import math
import re
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest

from fusionvl.synth.scenes import scene_sample
from fusionvl.synth.scenes.drawing import draw_picture, pixel_box, text_size
from fusionvl.synth.scenes.fonts import font
from fusionvl.synth.scenes.kinds import ALL_KINDS
from fusionvl.synth.scenes.palette import BACKDROPS, COLOURS, distance, nearest_colour
from fusionvl.synth.scenes.scene_graph import Landscape
from fusionvl.synth.scenes.shapes import MAX_TURN, OUTLINES, SHAPES
from fusionvl.synth.scenes.wording import DIRECTIONS, noun_phrase, plural

SIZE = 112
SHADES = 16  # how far a shade may be from its colour, in RGB
FEW_PIXELS = 20  # antialiased edges between two colours can look like a third; the smallest thing is three times that


def patches(image, colours):
    """The connected patches of each colour: number of pixels and centre, as shares of the picture's side."""
    pixels = np.asarray(image, dtype=int)
    found = defaultdict(list)
    for name in colours:
        mask = np.abs(pixels - COLOURS[name]).max(axis=2) <= SHADES
        while mask.any():
            patch = flood(mask, np.argwhere(mask)[0])
            if len(patch) > FEW_PIXELS:
                y, x = (patch.mean(axis=0) + 0.5) / len(pixels)
                found[name].append((x, y))
    return found


def flood(mask, start):
    """Takes the patch around a pixel out of the mask."""
    patch, edge = [], [tuple(start)]
    mask[edge[0]] = False
    while edge:
        y, x = edge.pop()
        patch.append((y, x))
        for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= near[0] < len(mask) and 0 <= near[1] < len(mask) and mask[near]:
                mask[near] = False
                edge.append(near)
    return np.array(patch)


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_as_many_patches_of_a_colour_as_things_that_wear_it(split):
    for number in range(60):
        sample = scene_sample("SynthCount", number, split=split)
        (scene,) = sample.picture
        worn = Counter(thing.colour for thing in scene.things)
        found = patches(sample.draw(SIZE), COLOURS.keys() - set(scene.background.names))
        counted = {name: len(places) for name, places in found.items()}
        assert counted == {name: worn[name] for name in worn}, sample.id


HOW_MANY = re.compile(r"(?:How many|Count the|What is the number of) ([\w ]+?)(?: are| can|\?|\.)")


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_counts_are_those_of_the_graph(split):
    asked = 0
    for number in range(300):
        sample = scene_sample("SynthCount", number, split=split)
        things = sample.picture[0].things
        for turn in sample.turns:
            if "single word" not in turn.question or not (match := HOW_MANY.match(turn.question)):
                continue
            fits = [
                thing for thing in things
                if match[1] in (plural(noun_phrase(thing)), plural(thing.shape), f"{thing.colour} shapes", "shapes")
            ]  # fmt: skip
            assert turn.answer == str(len(fits)), (sample.id, turn)
            asked += 1
    assert asked > 100


# The second thing may be in front of the first.
OVERLAPPING = {"SynthSpatial", "MultiChoice", "ConvShort", "ConvLong", "ConvQuiz"}

RELATIONS = (
    re.compile(r"Where is the (?P<it>.+) relative to the (?P<other>.+)\?"),
    re.compile(r"In which direction is the (?P<it>.+) from the (?P<other>.+)\?"),
    re.compile(r"How is the (?P<it>.+) placed with respect to the (?P<other>.+)\?"),
)


def test_relations_hold_between_the_centres_of_the_patches():
    asked = 0
    for number in range(150):
        sample = scene_sample("SynthSpatial", number)
        (scene,) = sample.picture
        for turn in sample.turns:
            match = next((m for pattern in RELATIONS if (m := pattern.match(turn.question))), None)
            if match is None:
                continue
            image = sample.draw(SIZE)
            centres = [centre(image, scene.things, match[name]) for name in ("it", "other")]
            dx, dy = (a - b for a, b in zip(*centres, strict=True))
            words = set(re.findall("left|right|above|below", turn.answer))
            if "left" in words or "right" in words:
                assert ("left" in words) == (dx < -0.1), (sample.id, turn)
                assert ("right" in words) == (dx > 0.1), (sample.id, turn)
            if "above" in words or "below" in words:
                assert ("above" in words) == (dy < -0.1), (sample.id, turn)
                assert ("below" in words) == (dy > 0.1), (sample.id, turn)
            assert words, turn
            asked += 1
    assert asked > 25


MIDDLES = {
    "in the top left corner": (1 / 6, 1 / 6), "at the top": (3 / 6, 1 / 6), "in the top right corner": (5 / 6, 1 / 6),
    "on the left side": (1 / 6, 3 / 6), "in the center": (3 / 6, 3 / 6), "on the right side": (5 / 6, 3 / 6),
    "in the bottom left corner": (1 / 6, 5 / 6), "at the bottom": (3 / 6, 5 / 6),
    "in the bottom right corner": (5 / 6, 5 / 6),
}  # fmt: skip
WHERE = f"(?P<place>{'|'.join(MIDDLES)})"
BY_PLACE = re.compile(rf"{WHERE} (?:there is )?(?:an? (?P<shape>\w+)|something (?P<colour>\w+))", re.IGNORECASE)


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_every_thing_is_named_at_its_place_by_shape_or_by_colour(split):
    asked = set()
    for number in range(60):
        sample = scene_sample("SynthLayout", number, split=split)
        (scene,) = sample.picture
        (turn,) = sample.turns
        parts = [match.groupdict() for match in BY_PLACE.finditer(turn.answer)]
        assert len(parts) == len(scene.things), sample.id
        (attribute,) = {name for part in parts for name in ("shape", "colour") if part[name]}
        assert {"shape": "shape", "colour": "color"}[attribute] in turn.question
        asked.add(attribute)
        places = [MIDDLES[part["place"].lower()] for part in parts]
        assert len(set(places)) == len(places)
        for place, part in zip(places, parts, strict=True):
            thing = min(scene.things, key=lambda thing: (thing.x - place[0]) ** 2 + (thing.y - place[1]) ** 2)
            assert part[attribute] == getattr(thing, attribute), (sample.id, part)
            middle = min(
                patches(sample.draw(SIZE), [thing.colour])[thing.colour],
                key=lambda found: (found[0] - place[0]) ** 2 + (found[1] - place[1]) ** 2,
            )
            assert middle == pytest.approx(place, abs=1 / 6), (sample.id, part)
    assert asked == {"shape", "colour"}


LISTED = {"shape": ("shape", SHAPES), "color": ("colour", tuple(COLOURS))}


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_listed_shapes_or_colours_are_all_there_are_in_order_and_where_the_pixels_say(split):
    asked = Counter()
    for number in range(120):
        sample = scene_sample("SynthPlaces", number, split=split)
        (turn,) = sample.turns
        word = "color" if "color" in turn.question else "shape"
        attribute, order = LISTED[word]
        listed = [tuple(part.split(" ", 1)) for part in turn.answer.rstrip(".").lower().split(", ")]
        ranks = [order.index(part[0]) for part in listed]
        assert ranks == sorted(ranks), sample.id
        seen = [(getattr(thing, attribute), told(place)) for thing, place in seen_places(sample)]
        assert sorted(seen) == sorted(listed), sample.id
        asked[word] += 1
    assert len(asked) == 2, asked


NAME = r"the (\w+)(?: shape)?"
BY_ONE = {
    "SynthWhere": re.compile(
        rf"(?:Where in the image is|In which part of the image is|Where can) {NAME}(?: be found)?\?"
    ),
    "SynthDirection": re.compile(
        rf"(?:Where|In which direction|How) is {NAME} (?:relative to|from|placed with respect to) {NAME}\?"
    ),
}


@pytest.mark.parametrize("split", ["train", "held-out"])
@pytest.mark.parametrize("kind", BY_ONE)
def test_questions_by_one_attribute_are_answered_as_the_pixels_say_and_half_of_them_in_a_sentence(kind, split):
    short = Counter()
    for number in range(80):
        sample = scene_sample(kind, number, split=split)
        (turn,) = sample.turns
        question, *wanted = turn.question.split("\n")
        names = [name for name in BY_ONE[kind].fullmatch(question).groups() if name]
        right = told(*(place_of(name, seen_places(sample)) for name in names))
        nouns = [name if name in SHAPES else f"{name} shape" for name in names]
        of = " of" if right.endswith(("left", "right")) and kind == "SynthDirection" else ""
        rest = f"{of} the {nouns[1]}" if kind == "SynthDirection" else " of the image"
        assert turn.answer == (right if wanted else f"The {nouns[0]} is {right}{rest}."), sample.id
        short[bool(wanted)] += 1
    assert min(short[True], short[False]) > 20, short


WORD = r"(?:What|Which) (kind of shape|color) is"  # `Which shape is` asks for both, as `a red star`
SIDE = r"(above|below|to the left|to the right)(?: of)?"
QUIZ = {
    "there": re.compile(rf"{WORD} {WHERE} of the image\?"),
    "next to": re.compile(rf"{WORD} directly {SIDE} {NAME}\?"),
    "furthest": re.compile(rf"{WORD} (furthest to the left|furthest to the right|highest up|lowest down)\?"),
    "is it": re.compile(rf"Is {NAME} {SIDE} {NAME}\?"),
}
FURTHEST = {
    "furthest to the left": lambda x, y: x, "furthest to the right": lambda x, y: -x,
    "highest up": lambda x, y: y, "lowest down": lambda x, y: -y,
}  # fmt: skip


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_a_quiz_that_names_one_attribute_is_answered_by_it_and_as_the_pixels_say(split):
    asked = Counter()
    for number in range(150):
        sample = scene_sample("ConvQuiz", number, split=split)
        for turn in sample.turns:
            question = turn.question.split("\n")[0]
            form, match = next(
                ((f, m) for f, pattern in QUIZ.items() if (m := pattern.fullmatch(question))), ("", None)
            )
            if match:
                assert turn.answer == quiz_answer(form, match, seen_places(sample)), (sample.id, question)
                asked[form] += 1
    assert set(asked) == set(QUIZ), asked
    assert min(asked.values()) > 10, asked


def quiz_answer(form, match, places):
    """What the places of the patches say."""
    if form == "is it":
        return "yes" if match[2] in told(place_of(match[1], places), place_of(match[3], places)) else "no"
    if form == "furthest":
        thing = min(places, key=lambda it: FURTHEST[match[2]](*it[1]))[0]
    elif form == "there":
        (thing,) = [thing for thing, place in places if told(place) == match["place"]]
    else:
        here = place_of(match[3], places)
        (thing,) = [thing for thing, place in places if told(place, here) == match[2]]
    return getattr(thing, LISTED[match[1].split()[-1]][0])


def seen_places(sample):
    """Each thing with the centre of its patch."""
    (scene,) = sample.picture
    found = patches(sample.draw(SIZE), {thing.colour for thing in scene.things})
    return [(thing, nearest(found, thing)) for thing in scene.things]


def place_of(name, places):
    """Where the one thing is that the name fits."""
    (place,) = [place for thing, place in places if name in (thing.shape, thing.colour)]
    return place


def nearest(found, thing):
    """The patch of the thing's colour that lies where the thing is."""
    return min(found[thing.colour], key=lambda place: math.dist(place, (thing.x, thing.y)))


def told(place, here=None):
    """In which part of the picture a place is or, seen from another, in which direction."""
    if here is None:
        return min(MIDDLES, key=lambda name: math.dist(MIDDLES[name], place))
    dx, dy = place[0] - here[0], place[1] - here[1]
    sides = {"above": dy < -0.1, "below": dy > 0.1, "to the left": dx < -0.1, "to the right": dx > 0.1}
    return " and ".join(side for side, there in sides.items() if there)


def centre(image, things, phrase):
    """The patch of the thing a phrase refers to."""
    (thing,) = [t for t in things if phrase in (t.shape, noun_phrase(t))]
    return nearest(patches(image, [thing.colour]), thing)


@pytest.mark.parametrize("kind", ["SynthColor", "SynthSpatial", "Reasoning", "ContrastLong", "SynthScene"])
def test_things_look_like_their_colour(kind):
    seen = 0
    for number in range(60):
        sample = scene_sample(kind, number)
        pixels = np.asarray(sample.draw(SIZE))
        for thing in (thing for scene in sample.picture for thing in scene.things):
            if thing.shape == "tree":
                continue
            left, top = round(thing.box.left * SIZE), round(thing.box.top * SIZE)
            side = round(thing.diameter * SIZE)
            region = pixels[top : top + side, left : left + side].reshape(-1, 3)
            own = (region == thing.rgb).all(axis=1).mean()
            assert own > (0.1 if thing.texture == "plain" else 0.05), (sample.id, thing)
            assert nearest_colour(thing.rgb) == thing.colour
            seen += 1
    assert seen > 60


def test_what_is_in_front_hides_some_but_less_than_a_third():
    seen = 0
    for number in range(120):
        (scene,) = scene_sample("SynthSpatial", number).picture
        behind, before, *others = scene.things
        if not behind.box.meets(before.box):
            continue
        alone = drawn_in(replace(scene, things=(behind, *others)), behind)
        hidden = 1 - drawn_in(scene, behind) / alone
        assert 0.01 < hidden < 0.33, (number, hidden)
        seen += 1
    assert seen > 15


def drawn_in(scene, thing):
    """How many pixels have exactly the shade of a thing."""
    return (np.asarray(draw_picture((scene,), 256)) == thing.rgb).all(axis=2).sum()


def test_turned_shapes_are_not_cut_off():
    for shape in SHAPES:
        for part in OUTLINES[shape]:
            for sign in (-1, 0, 1):
                turn = sign * math.radians(MAX_TURN.get(shape, 0))
                for x, y in part.points:
                    turned = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
                    assert part.cut or max(map(abs, turned)) <= 0.5, shape


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_nothing_is_hidden_and_nothing_sticks_out(kind):
    for number in range(60):
        for scene in scene_sample(kind, number).picture:
            boxes = [thing.box for thing in scene.things] + [sign.box for sign in scene.signs]
            for index, box in enumerate(boxes):
                assert scene.frame.grown(1e-9).contains(box), (kind, number)
                meets = [other for other in boxes[index + 1 :] if box.meets(other)]
                in_front = boxes[1:2] if index == 0 and kind in OVERLAPPING else []
                assert meets in ([], in_front), (kind, number)
            if isinstance(scene.background, Landscape) and scene.background.light is not None:
                assert not any(box.meets(scene.background.light) for box in boxes)


@pytest.mark.parametrize("kind", ["SynthText", "TextQA"])
@pytest.mark.parametrize("size", [64, 96, 384])
def test_text_stays_within_its_board(kind, size):
    for number in range(40):
        sample = scene_sample(kind, number)
        (scene,) = sample.picture
        pixels = np.asarray(sample.draw(size), dtype=int)
        for sign in scene.signs:
            left, top, right, bottom = pixel_box(sign.box, size)
            board = pixels[top:bottom, left:right]
            edge = max(1, round(size / 128))
            inside = board[edge:-edge, edge:-edge]
            for line in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert (line == COLOURS[sign.board]).all(), (sample.id, sign.lines)
            assert (inside == COLOURS[sign.ink]).all(axis=2).sum() > 0 or size < 96, (sample.id, sign.lines)
            width = max(font(sign.font, text_size(sign, size)).getlength(line) for line in sign.lines)
            assert width <= right - left


def test_every_letter_has_a_glyph_in_every_typeface():
    from fusionvl.synth.scenes import lexicon
    from fusionvl.synth.scenes.fonts import FONTS

    texts = [*(word for row in lexicon.NOTIONS for word in row), *lexicon.WORDS, *lexicon.GOODS, *lexicon.SHOPS]
    letters = sorted(set("".join(texts) + "0123456789:$-"))
    for name in FONTS:
        missing = bytes(font(name, 40).getmask("\U0010fffe"))
        absent = [letter for letter in letters if letter != " " and bytes(font(name, 40).getmask(letter)) == missing]
        assert absent == [], name


def test_colours_are_far_apart():
    names = list(COLOURS)
    pairs = [(a, b) for index, a in enumerate(names) for b in names[index + 1 :]]
    assert min(distance(COLOURS[a], COLOURS[b]) for a, b in pairs) > 35
    backdrops = list(BACKDROPS)
    closest = min(
        distance(BACKDROPS[a], BACKDROPS[b]) for index, a in enumerate(backdrops) for b in backdrops[index + 1 :]
    )
    assert closest > 8


def test_directions_have_words():
    ways = {"left", "right", "above", "below", *(f"{y} {x}" for y in ("above", "below") for x in ("left", "right"))}
    assert set(DIRECTIONS) == ways
