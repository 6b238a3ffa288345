"""Tasks that a judge scores: what it is asked, how its words are understood, and what becomes of the marks."""

import pytest

from fusionvl.eval.task import Question, Sample
from fusionvl.eval.tasks.registry import find_task

MMVET = Question("1", "What is x?", None, "1", "-1<AND>-5", {"capabilities": ["math", "ocr"]})
LLAVA = Question("2", "What is it?", None, "2", "A lake.", {"category": "conv", "caption": "A lake in the hills."})


def judge(reply, asked=None):
    def answer(prompt):
        if asked is not None:
            asked.append(prompt)
        return reply

    return answer


def verdict(name, question, reply, answer="x = -1"):
    return find_task(name).score(question, answer, judge(reply))


def test_mm_vet_asks_with_examples_and_ends_where_the_number_belongs():
    asked = []
    find_task("mmvet").score(MMVET, "x = -1", judge("0.5", asked))
    assert asked[0].startswith("Compare the ground truth and prediction")
    assert asked[0].count("What is x in the equation? | -1 <AND> -5 |") == 5
    assert asked[0].endswith("\nWhat is x? | -1 <AND> -5 | x = -1 |")


@pytest.mark.parametrize(
    ("reply", "score"),
    [("0.5", 0.5), (" 1.0\n", 1.0), ("| 0.3 |", 0.3), ("0", 0.0), ("1.5", None), ("Half right.", None), ("-", None)],
)
def test_mm_vet_takes_a_number_from_0_to_1(reply, score):
    judged = verdict("mmvet", MMVET, reply)
    assert judged.score == score
    assert reply.strip() in judged.reason


def test_llava_bench_shows_context_question_and_both_answers():
    asked = []
    find_task("llava_in_the_wild").score(LLAVA, "A sea.", judge("9 4\nBecause", asked))
    assert asked[0].startswith(
        "[Context]\nA lake in the hills.\n\n[Question]\nWhat is it?\n\n[Assistant 1]\nA lake.\n\n[End of Assistant 1]"
        "\n\n[Assistant 2]\nA sea.\n\n[End of Assistant 2]\n\n[System]\nWe would like to request your feedback"
    )


@pytest.mark.parametrize(
    ("reply", "parsed", "score"),
    [
        ("9 4\nThe first 10 words are better.", "9 4", 0.4),
        ("8.5, 7.5", "8.5 7.5", 0.75),
        ("Both are fine.", None, None),
        ("9", None, None),
        ("0 11", None, None),
    ],
)
def test_llava_bench_takes_two_numbers_of_the_first_line(reply, parsed, score):
    judged = verdict("llava_in_the_wild", LLAVA, reply)
    assert (judged.parsed, judged.score) == (parsed, score)


def test_an_empty_answer_to_mm_vet_is_0_and_nobody_is_asked():
    asked = []
    judged = find_task("mmvet").score(MMVET, " ", judge("1.0", asked))
    assert (judged.parsed, judged.score, judged.reason) == (None, 0, "empty answer")
    assert asked == []


@pytest.mark.parametrize(("name", "question"), [("mmvet", MMVET), ("llava_in_the_wild", LLAVA)])
def test_without_a_judge_there_is_no_score(name, question):
    assert find_task(name).needs_judge
    with pytest.raises(ValueError, match="scored by a judge"):
        find_task(name).score(question, "x", None)


def sample(parsed, score, **details):
    return Sample("1", "?", "!", parsed, score, "", "", details, "stop")


def test_mm_vet_reports_each_capability():
    samples = [
        sample("1.0", 1.0, capabilities=["ocr"]),
        sample("0.4", 0.4, capabilities=["math", "ocr"]),
        sample(None, None, capabilities=["math"]),
    ]
    assert find_task("mmvet").summarise(samples) == pytest.approx({"score": 70, "score/ocr": 70, "score/math": 40})


def test_llava_bench_reports_marks_relative_to_gpt4():
    samples = [
        sample("10 5", 0.5, category="conv"),
        sample("8 7", 0.7, category="detail"),
        sample(None, None, category="detail"),
    ]
    expected = {"score": 100 * 12 / 18, "score/conv": 50, "score/detail": 87.5}
    assert find_task("llava_in_the_wild").summarise(samples) == pytest.approx(expected)
