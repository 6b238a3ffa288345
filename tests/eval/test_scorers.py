"""Every scorer against hand-worked cases; tests/lmms_eval compares them with lmms-eval's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionvl.eval.scorers import (
    score_anls,
    score_choice,
    score_exact,
    score_identical,
    score_relaxed,
    score_yes_no,
)

OPTIONS = {"A": "cat", "B": "dog", "C": "dark red", "D": "2.5"}


@pytest.mark.parametrize(
    ("answer", "understood"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        (" B.\n", "B"),
        ("B. cat", "B"),  # the letter was asked for, whatever the words
        ("B) dog", "B"),
        ("Dark red.", "C"),
        ("2.5", "D"),
        ("The answer is B.", "B"),
        ("Answer: (b)", "B"),
        ("A bird", None),  # an article
        ("A or B", None),
        ("A\nB", None),
        ("not B", None),
        ("cat or dog", None),
        ("i.e. that", None),
        ("E", None),
        ("It is -5 degrees", None),
    ],
)
def test_letters(answer, understood):
    mark = score_choice(answer, "B", OPTIONS)
    assert (mark.parsed, mark.score) == (understood, float(understood == "B"))
    assert bool(mark.reason) == (understood is None)


@pytest.mark.parametrize(
    ("answer", "understood"),
    [
        ("Yes", "yes"),
        ("no.", "no"),
        ("No, there is not", "no"),
        ("Yes there is no problem", "yes"),  # the first word
        ("There is no dog", "no"),  # the only one of the two
        ("Answer: yes", "yes"),
        ("It is yes and no", None),
        ("Yesterday", None),
        ("nothing", None),
        ("maybe", None),
    ],
)
def test_yes_and_no(answer, understood):
    mark = score_yes_no(answer, "yes")
    assert (mark.parsed, mark.score) == (understood, float(understood == "yes"))
    assert bool(mark.reason) == (understood is None)


@pytest.mark.parametrize(
    ("score", "answer", "reference", "expected"),
    [
        (score_exact, " A  cat. ", ["the cat", "a Cat"], 1),
        (score_exact, "a cat..", ["a cat"], 0),
        (score_exact, "cat", ["a cat"], 0),
        (score_identical, "red", "red", 1),
        (score_identical, "Red", "red", 0),
        (score_identical, "red.", "red", 0),
        (score_anls, "Hello  World", ["hello world"], 1),
        (score_anls, "helo", ["hello"], 0.8),  # distance 1 of 5
        (score_anls, "ab", ["abcd"], 0.5),  # exactly one half counts in the challenge's script
        (score_anls, "abx", ["abcdefg"], 0),  # 1 - 5/7 is below one half
        (score_anls, "kitten", ["sitting", "mitten"], 5 / 6),  # the best reference
        (score_relaxed, "105", ["100"], 1),
        (score_relaxed, "105.1", ["100"], 0),
        (score_relaxed, "-95", ["-100"], 1),
        (score_relaxed, "12%", ["0.12"], 1),
        (score_relaxed, "12%", ["12"], 0),  # the published script takes percent literally
        (score_relaxed, "0.0", ["0"], 0),  # zero has no 5 %, and is compared as text
        (score_relaxed, "Yes", ["yes"], 1),
        (score_relaxed, "Germany.", ["Germany"], 0),
        (score_relaxed, "1,000", ["1000"], 0),  # no number to the published script
        (score_relaxed, "2019", ["2010"], 1),  # years are numbers, too
        (score_relaxed, "nan", ["100"], 0),
    ],
)
def test_scores(score, answer, reference, expected):
    mark = score(answer, reference)
    assert mark.score == pytest.approx(expected, abs=1e-12)
    assert mark.parsed is not None


@pytest.mark.parametrize("score", [score_exact, score_anls, score_relaxed])
def test_an_empty_answer_is_not_understood(score):
    for mark in (
        score(" \n", ["x"]),
        score_choice("", "A", OPTIONS),
        score_yes_no("", "no"),
        score_identical(" ", " "),
    ):
        assert (mark.parsed, mark.score, mark.reason) == (None, 0.0, "empty answer")


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_whatever_is_said_is_an_option_or_is_not_understood(answer):
    for mark, allowed in ((score_choice(answer, "A", OPTIONS), OPTIONS), (score_yes_no(answer, "no"), ("yes", "no"))):
        assert mark.parsed in (None, *allowed)
        assert (mark.parsed is None) == bool(mark.reason)


@given(st.sampled_from("ABCD"), st.sampled_from("ABCD"), st.sampled_from([" ", " or ", " and ", "\n", "/"]))
@settings(max_examples=100, deadline=None)
def test_two_letters_are_not_one(first, second, between):
    assert score_choice(first + between + second, first, OPTIONS).parsed is None
