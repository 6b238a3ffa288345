"""The scorers of our own tests against lmms-eval's functions, on the same random answers.

Where answers have the form that was asked for, both agree to the last digit.
"""

import random
from statistics import mean

import pytest
from lmms_eval.api.metrics import anls, exact_match_hf_evaluate
from lmms_eval.tasks.ai2d import utils as ai2d
from lmms_eval.tasks.chartqa import utils as chartqa
from lmms_eval.tasks.mme import utils as mme
from lmms_eval.tasks.pope import utils as pope
from lmms_eval.tasks.realworldqa import utils as realworldqa
from lmms_eval.tasks.scienceqa import utils as scienceqa

from fusionvl.eval.scorers import score_anls, score_choice, score_exact, score_relaxed, score_yes_no

TIMES = 2000
WORDS = ["stop", "yes", "no", "a", "the", "don't", "1,000", "3.5", "p.m.", "(left)", "10%", "$5", "a;b", "No.", "!"]
OPTIONS = {"A": "cat", "B": "dog", "C": "hen", "D": "cow"}


@pytest.fixture
def draw():
    return random.Random(0)


def phrase(draw):
    return " ".join(draw.choices(WORDS, k=draw.randint(1, 4)))


def test_anls(draw):
    scores = set()
    for _ in range(TIMES):
        references = [phrase(draw) for _ in range(draw.randint(1, 3))]
        answer = list(draw.choice(references))
        for _ in range(draw.randint(0, 5)):
            answer[draw.randrange(len(answer))] = draw.choice("ab 1")
        text = "".join(answer)
        if text.strip():
            theirs = anls(references, [text])["anls"]
            assert score_anls(text, references).score == pytest.approx(theirs, abs=1e-12), (text, references)
            scores.add(round(theirs, 6))
    assert 0 in scores
    assert len(scores) > 10


def test_relaxed_accuracy(draw):
    scores = []
    for _ in range(TIMES):
        reference = draw.choice([f"{draw.uniform(-200, 200):.2f}", f"{draw.randint(0, 99)}%", "0", "Germany", "2,010"])
        near = [reference, reference.lower(), f"{draw.uniform(-200, 200):.1f}", "Yes", "", "nan", f"{reference}%"]
        if reference.lstrip("-").replace(".", "").isdigit():
            near.append(f"{float(reference) * draw.uniform(0.93, 1.07):.4f}")
        answer = draw.choice(near)
        theirs = chartqa.chartqa_process_results({"type": "human_test", "answer": reference}, [answer])
        assert score_relaxed(answer, [reference]).score == theirs["relaxed_overall"], (answer, reference)
        scores.append(theirs["relaxed_overall"])
    assert 0.2 < mean(scores) < 0.9


@pytest.mark.parametrize("reference", ["yes", "no"])
def test_yes_and_no(reference):
    for answer in ("yes", "No", "YES ", "no"):
        theirs = pope.pope_process_results({"question_id": "1", "answer": reference}, [answer])["pope_accuracy"]
        assert score_yes_no(answer, reference).score == theirs["score"], answer
    for answer in ("Yes", "no", "No.", "yes, it is", "No, it is not", "Yes there is no problem", "maybe"):
        doc = {"question_id": "1", "category": "OCR", "answer": reference}
        theirs = mme.mme_process_results(doc, [answer])["mme_perception_score"]
        assert score_yes_no(answer, reference).score == theirs["score"], answer


@pytest.mark.parametrize("reference", "ABCD")
def test_letters(reference):
    for letter in "ABCD":
        for answer in (letter, f"{letter}. {OPTIONS[letter]}"):
            ours = score_choice(answer, reference, OPTIONS).score
            filtered = ai2d.MultiChoiceRegexFilter().apply([[answer]], [{}])
            matched = exact_match_hf_evaluate(filtered, [reference], ignore_case=True, ignore_punctuation=True)
            assert ours == matched["exact_match"], answer
            doc = {"choices": list(OPTIONS.values()), "answer": "ABCD".index(reference)}
            assert ours == scienceqa.sqa_process_results(doc, [answer])["exact_match"], answer
        for answer in (letter, f"({letter})", f"{letter}.", f"The answer is {letter}.", f"{letter}) x"):
            theirs = realworldqa.realworldqa_process_results({"answer": reference}, [answer])["exact_match"]
            assert score_choice(answer, reference, OPTIONS).score == theirs, answer


@pytest.mark.parametrize("reference", ["3", "Uphill"])
def test_words(reference):
    for answer in ("3", "3.", "three", "Uphill", "uphill.", "4"):
        theirs = realworldqa.realworldqa_process_results({"answer": reference}, [answer])["exact_match"]
        assert score_exact(answer, [reference]).score == theirs, answer
