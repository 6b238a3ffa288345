"""The pictures show what the graph says, which `test_answers` reads: recomputed from pixels."""

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from fusionvl.synth.kinds import KINDS
from fusionvl.synth.scene_sample import scene_sample
from fusionvl.synth.scenes import lexicon
from fusionvl.synth.scenes.drawing import draw_picture, pixel_box, text_size
from fusionvl.synth.scenes.fonts import FONTS, font
from fusionvl.synth.scenes.palette import BACKDROPS, COLOURS, distance, nearest_colour
from fusionvl.synth.scenes.scene_graph import Landscape
from fusionvl.synth.scenes.shapes import MAX_TURN, OUTLINES, SHAPES

SIZE = 112
SHADES = 16  # how far a shade may be from its colour, in RGB
FEW_PIXELS = 20  # antialiased edges between two colours can look like a third; the smallest thing is three times that


def patches(pixels, colour, within=SHADES):
    """The connected patches of a colour: centres as shares of the picture's sides."""
    mask = np.abs(pixels.astype(int) - colour).max(axis=2) <= within
    found = []
    while mask.any():
        patch = flood(mask, np.argwhere(mask)[0])
        if len(patch) > FEW_PIXELS:
            y, x = (patch.mean(axis=0) + 0.5) / len(pixels)
            found.append((x, y))
    return found


def flood(mask, start):
    """Takes the patch around a pixel out of the mask."""
    patch, edge = [], [tuple(start)]
    mask[edge[0]] = False
    while edge:
        y, x = edge.pop()
        patch.append((y, x))
        for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if all(0 <= at < end for at, end in zip(near, mask.shape, strict=True)) and mask[near]:
                mask[near] = False
                edge.append(near)
    return np.array(patch)


@pytest.mark.parametrize("split", ["train", "held-out"])
@pytest.mark.parametrize("kind", ["SynthCount", "SynthLayout", "SynthDirection", "Reasoning", "ContrastLong"])
def test_each_thing_is_a_patch_of_its_colour_in_its_place_and_there_are_no_others(kind, split):
    """So that what the graph says of numbers, colours and places is what can be seen, in two pictures as in one."""
    for number in range(30):
        sample = scene_sample(kind, number, split=split)
        things = defaultdict(list)
        for scene in sample.picture:
            for thing in scene.things:
                things[thing.colour].append(thing)
        pixels = np.asarray(sample.draw(SIZE))
        backdrop = {name for scene in sample.picture for name in scene.background.names}
        # A seam of gray stands between two pictures.
        for colour in COLOURS.keys() - backdrop - ({"gray"} if len(sample.picture) > 1 else set()):
            found = patches(pixels, COLOURS[colour])
            assert len(found) == len(things[colour]), (sample.id, colour)
            for thing in things[colour]:
                nearest = min(math.dist(place, (thing.x, thing.y)) for place in found)
                assert nearest < 0.3 * thing.diameter, (sample.id, thing)  # a crescent's middle is off to its side


@pytest.mark.parametrize("kind", ["SynthColor", "SynthSpatial", "SynthScene"])
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


def textured(pixels, thing):
    """The share of a thing's middle that is not of its own shade."""
    reach = thing.diameter / 6
    left, right, top, bottom = (round(SIZE * edge) for edge in (
        thing.x - reach, thing.x + reach, thing.y - reach, thing.y + reach))  # fmt: skip
    return (np.abs(pixels[top:bottom, left:right].astype(int) - thing.rgb).max(axis=2) > SHADES).mean()


def test_what_is_striped_dotted_or_checked_is_and_what_is_plain_is_not():
    seen = defaultdict(int)
    for number in range(120):
        sample = scene_sample("SynthColor", number)
        pixels = np.asarray(sample.draw(SIZE))
        for thing in sample.picture[0].things:
            if thing.shape in ("square", "circle", "heart", "diamond"):  # solid in their middle
                assert (textured(pixels, thing) > 0.1) == (thing.texture != "plain"), (sample.id, thing)
                seen[thing.texture] += 1
    assert min(seen[texture] for texture in ("plain", "striped", "dotted", "checked")) > 3


def landscapes(count):
    for number in range(count):
        sample = scene_sample("SynthScene", number)
        (scene,) = sample.picture
        yield scene.background, np.asarray(draw_picture((replace(scene, things=()),), SIZE)).astype(int), sample.id


CLOUDS = {
    ("day", "cloudy"): (250, 251, 253),
    ("sunset", "cloudy"): (252, 206, 190),
    ("night", "cloudy"): (104, 110, 130),
}


def test_sky_and_ground_show_time_weather_and_setting():
    light, seen = {"day": [], "sunset": [], "night": []}, set()
    for land, pixels, name in landscapes(150):
        sky = pixels[: round((land.horizon - 0.2) * SIZE)].reshape(-1, 3)
        ground = np.median(pixels[round(SIZE * 0.9) :].reshape(-1, 3), axis=0)
        light[land.time].append(np.median(sky, axis=0).mean())
        if land.weather == "clear" and land.time == "day":
            assert ground.argmax() == {"meadow": 1, "desert": 0, "sea": 2, "mountains": 1}.get(land.setting, 2), name
            assert (ground.min() > 225) == (land.setting == "snowy field"), name
        if (land.time, land.weather) in CLOUDS:
            clouds = patches(pixels[: round(land.horizon * SIZE)], CLOUDS[land.time, land.weather], within=2)
            assert len(clouds) == len(land.clouds), name
        falling = [(190, 206, 230), (252, 252, 255)]  # of rain and snow
        drawn = [(np.abs(pixels[: SIZE // 4] - colour).max(axis=2) < 12).sum() > 4 for colour in falling]
        if land.time == "night":
            assert drawn == [land.weather == "rainy", land.weather == "snowy"], name
            seen.add(land.weather)
    assert max(light["night"]) < min(light["day"])
    assert seen == {"clear", "cloudy", "rainy", "snowy"}


def test_the_sun_is_round_and_orange_at_sunset_and_the_moon_a_crescent_where_the_graph_says():
    seen = set()
    for land, pixels, name in landscapes(120):
        if land.light is None:
            continue
        left, top, right, bottom = pixel_box(land.light, SIZE)
        body = pixels[top:bottom, left:right]
        colour = {"day": (255, 222, 60), "sunset": (255, 120, 40), "night": (244, 240, 214)}[land.time]
        share = (np.abs(body - colour).max(axis=2) < SHADES).mean()
        # A disc fills 79 % of its square.
        assert (0.2 < share < 0.5) if land.time == "night" else share > 0.65, name
        assert nearest_colour(colour) == {"day": "yellow", "sunset": "orange", "night": "white"}[land.time]
        seen.add(land.time)
    assert seen == {"day", "sunset", "night"}


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
        for area in OUTLINES[shape]:
            for sign in (-1, 0, 1):
                turn = sign * math.radians(MAX_TURN.get(shape, 0))
                for x, y in area.points:
                    turned = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
                    assert area.cut or max(map(abs, turned)) <= 0.5, shape


# The second thing may be in front of the first.
OVERLAPPING = {"SynthSpatial", "MultiChoice", "ConvShort", "ConvLong", "ConvQuiz"}


@pytest.mark.parametrize("kind", KINDS)
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
def test_text_stays_within_its_board_and_both_have_their_colours(kind, size):
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
