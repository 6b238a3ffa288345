import json

import pytest

from fusionvl.data.easy_vqa import load_split
from fusionvl.engine import Answer
from fusionvl.eval.easy_vqa import score_easy_vqa


class FakeEngine:
    """Answers from a table, counts what it is asked, and may stop working."""

    def __init__(self, answers, dies_after=None):
        self.answers = answers
        self.asked = []
        self.dies_after = dies_after

    def answer(self, conversations, *, max_new_tokens, num_latents):
        if self.dies_after is not None and len(self.asked) >= self.dies_after:
            raise KeyboardInterrupt
        texts = []
        for messages in conversations:
            image, text = messages[0]["content"]
            self.asked.append((image["image"], text["text"]))
            texts.append(self.answers[image["image"], text["text"]])
        return [Answer(text, "stop", 1, 1) for text in texts]


@pytest.fixture
def truth():
    return {(image.path, turn.question): turn.answer for image in load_split("test") for turn in image.turns}


def test_all_official_questions_are_asked_once(tmp_path, truth):
    engine = FakeEngine(truth)
    score = score_easy_vqa(engine, tmp_path)
    assert (score.questions, score.correct, score.accuracy) == (9673, 9673, 1.0)
    assert len(engine.asked) == 9673
    assert score.correct_by_kind["yes/no"] == (7136, 7136)
    assert json.loads((tmp_path / "score.json").read_text())["accuracy"] == 1.0


def test_only_exact_answers_count(tmp_path, truth):
    wrong = dict.fromkeys(truth, "yes")
    asked_yes = sum(answer == "yes" for answer in list(truth.values()))
    assert asked_yes > 0
    score = score_easy_vqa(FakeEngine(wrong), tmp_path)
    assert score.correct == score.correct_by_kind["yes/no"][0] == 3611
    assert score_easy_vqa(FakeEngine(dict.fromkeys(truth, "Yes.")), tmp_path / "inexact").correct == 0


def test_an_interrupted_score_goes_on_without_asking_twice(tmp_path, truth):
    first = FakeEngine(truth, dies_after=20)
    with pytest.raises(KeyboardInterrupt):
        score_easy_vqa(first, tmp_path, batch_size=8, limit=50)
    samples = tmp_path / "samples.jsonl"
    samples.write_text(samples.read_text() + '{"id": "torn')
    second = FakeEngine(truth)
    score = score_easy_vqa(second, tmp_path, batch_size=8, limit=50)
    assert score.questions == 50
    assert len(first.asked) + len(second.asked) == 50
    assert len(samples.read_text().splitlines()) == 50


def test_results_of_other_questions_are_not_mixed_in(tmp_path, truth):
    score_easy_vqa(FakeEngine(truth), tmp_path, limit=20)
    with pytest.raises(ValueError, match="other questions"):
        score_easy_vqa(FakeEngine(truth), tmp_path, limit=10)
