"""Scenes follow from their names and stay what they are; splits are disjoint; answers are balanced."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from fusionvl.synth.kinds import KINDS
from fusionvl.synth.kinds.scene_question import SHORT
from fusionvl.synth.scene_sample import scene_sample
from fusionvl.synth.scenes import lexicon
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.palette import COLOURS
from fusionvl.synth.scenes.shapes import BUILT, SHAPES
from fusionvl.synth.scenes.things import draw_background, is_held_out, visible_pairs, words_of

MOST_TURNS = {
    "SynthWhere": 1, "SynthDirection": 1, "ConvQuiz": 8,
    "DrawnThing": 1, "DrawnNames": 1, "DrawnScene": 8, "DrawnCount": 4, "DrawnSmall": 6,
}  # fmt: skip
COLOURED = [name for name, kind in KINDS.items() if not kind.needs_drawings]

FINGERPRINTS = """
import hashlib
from fusionvl.synth.kinds import KINDS
from fusionvl.synth.scene_sample import scene_sample
for kind in reversed(KINDS):
    for number in (3, 1):
        sample = scene_sample(kind, number)
        picture = repr(sample.picture).encode() if KINDS[kind].needs_drawings else sample.draw(128).tobytes()
        print(sample.id, hashlib.sha256(picture + repr(sample.turns).encode()).hexdigest())
"""


def test_the_same_name_gives_the_same_sample_in_another_process_and_order():
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FINGERPRINTS]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    theirs = dict(line.split() for line in printed.splitlines())
    ours = {}
    for kind in KINDS:
        for number in (1, 3):
            sample = scene_sample(kind, number)
            picture = repr(sample.picture).encode() if KINDS[kind].needs_drawings else sample.draw(128).tobytes()
            ours[sample.id] = hashlib.sha256(picture + repr(sample.turns).encode()).hexdigest()
    assert ours == theirs


def test_scenes_are_what_they_were():
    """Hashes of pictures and of questions with answers, taken once; a data set can be drawn again at any time.

    Lettering depends on the font renderer, and drawings are no part of the package: of a scene with signs or drawn
    things, the graph is hashed in place of the picture.
    """
    for name, expected in json.loads((Path(__file__).parent / "golden_scenes.json").read_text()).items():
        kind, number = name.split("-")[0], int(name.split("-")[-1])
        sample = scene_sample(kind, number, split="held-out" if "-held-out-" in name else "train")
        of_graph = KINDS[kind].needs_drawings or any(scene.signs for scene in sample.picture)
        picture = json.dumps(sample.truth["pictures"]).encode() if of_graph else sample.draw(64).tobytes()
        turns = json.dumps([[turn.question, turn.answer] for turn in sample.turns]).encode()
        hashes = " ".join(hashlib.sha256(content).hexdigest()[:16] for content in (picture, turns))
        assert (sample.id, hashes) == (name, expected)


def test_draws_do_not_change_with_the_version_of_python():
    draws = Draws("a name")
    assert [draws.integer(0, 9) for _ in range(12)] == [1, 0, 3, 5, 8, 8, 6, 7, 4, 3, 8, 1]
    assert draws.shuffled("abcdef") == list("cbdafe")


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_makes_a_sound_sample(kind):
    seen = set()
    for split in ("train", "held-out"):
        for number in range(150):
            sample = scene_sample(kind, number, split=split, seed=7)
            assert 1 <= len(sample.turns) <= MOST_TURNS.get(kind, 5)
            questions = [turn.question for turn in sample.turns]
            assert len(set(questions)) == len(questions), sample.id
            for turn in sample.turns:
                assert not re.search(
                    r"None|[{}]|  |\b[Aa] (?:[aeiou]\w|hour)|\b[Aa]n (?!hour)[^aeiou\W]|\bone (?!is|has)\w+[^s]s\b",
                    f"{turn.question}\n{turn.answer}",
                ), turn
                assert turn.question[0].isupper(), turn
            seen.add(repr((sample.picture, sample.turns)))
    assert len(seen) == 300, "some samples are equal"


def test_seeds_and_numbers_make_different_samples():
    pictures = {repr(scene_sample("SynthColor", n, seed=s).picture) for n in range(20) for s in range(3)}
    assert len(pictures) == 60


def pairs_and_words(split):
    pairs, words = set(), set()
    for kind in COLOURED:
        for number in range(80):
            sample = scene_sample(kind, number, split=split)
            for scene in sample.picture:
                pairs |= {(thing.shape, thing.colour) for thing in scene.things if thing.shape != "tree"}
                words |= {word for sign in scene.signs for word in " ".join(sign.lines).split() if word.isupper()}
            text = " ".join(turn.question + " " + turn.answer for turn in sample.turns)
            for colour, noun in re.findall(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES + BUILT)})(?:e?s)?\b", text):
                pairs.add((noun, colour))
    return pairs, words


def test_splits_have_no_pair_and_no_word_in_common():
    train_pairs, train_words = pairs_and_words("train")
    held_out_pairs, held_out_words = pairs_and_words("held-out")
    assert not train_pairs & held_out_pairs
    assert {shape for shape, _ in train_pairs} == {shape for shape, _ in held_out_pairs} == set(SHAPES + BUILT)
    assert {colour for _, colour in train_pairs} == {colour for _, colour in held_out_pairs} == set(COLOURS)
    assert len(held_out_pairs) > 20
    assert not train_words & held_out_words


def test_a_fifth_of_the_combinations_is_held_out():
    held_out = sum(is_held_out(shape, colour) for shape in SHAPES + BUILT for colour in COLOURS)
    assert held_out / (len(SHAPES + BUILT) * len(COLOURS)) == pytest.approx(0.2, abs=0.02)
    assert not set(words_of("train", lexicon.WORDS)) & set(words_of("held-out", lexicon.WORDS))


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_every_background_leaves_enough_combinations(split):
    for background in {draw_background(Draws(str(number)), plain=0.3) for number in range(400)}:
        choice = visible_pairs(split, background)
        assert len({shape for shape, _ in choice}) >= 8, background
        solid = [pair for pair in choice if pair[0] in ("circle", "square", "heart")]
        assert any(one[0] != two[0] and one[1] != two[1] for one in solid for two in solid), background


def test_counts_from_0_to_10_are_equally_frequent():
    counts = Counter()
    for number in range(1100):
        sample = scene_sample("SynthCount", number)
        pair = re.compile(rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})(?:e?s)?\b")
        asked = [match for turn in sample.turns if (match := pair.search(turn.question))]
        assert len(asked) == 1, sample.id
        counts[sum((thing.colour, thing.shape) == asked[0].groups() for thing in sample.picture[0].things)] += 1
    assert set(counts) == set(range(11))
    assert max(counts.values()) < 1.6 * min(counts.values()), counts


def test_letters_are_equally_frequent():
    letters = Counter(turn.answer for number in range(600) for turn in scene_sample("MultiChoice", number).turns)
    assert set(letters) == set("ABCD")
    assert max(letters.values()) < 1.25 * min(letters.values()), letters


@pytest.mark.parametrize(
    "kind",
    ["SynthColor", "SynthCount", "SynthSpatial", "SynthScene", "SynthText", "ConvShort", "ConvQuiz", "DrawnScene",
     "DrawnCount"],
)  # fmt: skip
def test_yes_is_as_frequent_as_no(kind):
    answers = Counter()
    for number in range(600):
        for turn in scene_sample(kind, number).turns:
            answers[re.split(r"\W", turn.answer)[0].lower()] += 1
    assert answers["yes"] + answers["no"] > 100
    assert 0.4 < answers["yes"] / (answers["yes"] + answers["no"]) < 0.6, answers


def test_a_quiz_asks_many_short_questions_half_of_them_about_places():
    samples = [scene_sample("ConvQuiz", number) for number in range(300)]
    turns = [turn for sample in samples for turn in sample.turns]
    assert all(turn.question.endswith(SHORT) for turn in turns)
    assert len(turns) > 6 * len(samples)
    place = r"left|right|above|below|corner|top|bottom|center|Where|In which|How is|front|behind|hidden|highest|lowest"
    about_places = sum(any(re.search(place, turn.question) for turn in sample.turns) for sample in samples)
    assert 0.4 < about_places / len(samples) < 0.6


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"kind": "SynthSmell", "number": 0}, "no kind 'SynthSmell', only SynthColor, "),
        ({"kind": "SynthColor", "number": 0, "split": "test"}, "there are train, held-out"),
    ],
)
def test_mistakes_are_told(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        scene_sample(**arguments)


@pytest.mark.parametrize("size", [63, 1025])
def test_sizes_out_of_range_are_refused(size):
    with pytest.raises(ValueError, match=f"not at {size}"):
        scene_sample("SynthColor", 0).draw(size)
