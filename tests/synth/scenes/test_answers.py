"""Every answer and every description, of all kinds, follows from the graph; see `scene_reading`."""

import random
from dataclasses import replace

import pytest
from scene_reading import ANSWERS, wrong_answers

from fusionvl.synth.kinds import KINDS
from fusionvl.synth.kinds.scene_question import SceneQuestion
from fusionvl.synth.scene_sample import scene_sample
from fusionvl.synth.scenes.lexicon import LANGUAGES, NOTIONS, tells_its_language

COUNT = 50  # scenes of a kind and split


@pytest.mark.parametrize("split", ["train", "held-out"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_follows_from_the_graph(kind, split):
    wrong = [line for number in range(COUNT) for line in wrong_answers(scene_sample(kind, number, split=split))]
    assert wrong == []


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.needs_drawings])
def test_every_full_answer_and_no_wrong_option_follows_from_the_graph(kind, monkeypatch):
    """Of kinds that answer in short alone: their questions have the other forms, too."""

    def long(question):
        assert question.answer not in question.wrong
        assert len(set(question.wrong)) == len(question.wrong)
        return question.long()

    monkeypatch.setattr(SceneQuestion, "brief", long)
    samples = [scene_sample(kind, number) for number in range(2 * COUNT)]
    assert all(turn.correct is None for sample in samples for turn in sample.turns)
    assert [line for sample in samples for line in wrong_answers(sample)] == []


def test_every_form_of_question_is_met():
    names = [(kind, number) for kind in KINDS for number in range(COUNT)]
    names += [("SynthCount", number) for number in range(COUNT, 1500)]  # of one form in five hundred scenes
    asked = (turn.question for name in names for turn in scene_sample(*name).turns)
    left = {pattern for pattern, _ in ANSWERS}
    for question in asked:
        left -= {pattern for pattern in left if pattern.fullmatch(question.split("\n")[0])}
    assert left == set()


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_is_another_scenes_is_seen_to_be_wrong(kind):
    """The reading is no echo: with the answers of other scenes, it finds most turns at fault."""
    samples = [scene_sample(kind, number) for number in range(60)]
    pool = [turn for sample in samples for turn in sample.turns]
    draws, seen, exchanged = random.Random(0), 0, 0
    for sample in samples:
        for turn in sample.turns:
            other = draws.choice([it for it in pool if it.answer != turn.answer])
            swapped = replace(turn, answer=other.answer, correct=turn.correct and other.answer)
            seen += bool(wrong_answers(replace(sample, turns=(swapped,))))
            exchanged += 1
    assert seen == exchanged


def test_words_that_two_languages_share_tell_neither():
    shared = {"PAIN": "French", "MOST": "Polish", "STRAND": "German", "PAN": "Spanish", "STATION": "English"}
    for notion in NOTIONS:
        for number, word in enumerate(notion):
            if word in shared:
                assert shared[word] == LANGUAGES[number]
                assert not tells_its_language(notion, number), word
        assert any(tells_its_language(notion, number) for number in range(1, len(LANGUAGES))), notion
