"""Which replies count as the same answer."""

import pytest

from fusionvl.synth.choices import as_asked, choices_of, options_in, with_options
from fusionvl.synth.filters.agreement import agrees, is_short, says_yes
from fusionvl.synth.rows import SynthTurn

CHOICE = SynthTurn("Which?\nA. a red car\nB. a car\nC. a boat", "B", ("a red car", "a car", "a boat"), "B")


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        ("3", "There are three."), ("three", "3"), ("0", "none"), ("yes", "Yes, it is."), ("No", "no"),
        ("red", "It is red."), ("in the top left corner", "top left corner"), ("a red circle", "The red circle."),
    ],
)  # fmt: skip
def test_same(answer, reply):
    assert agrees(SynthTurn("?", answer), reply)


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        ("3", "4, or 3"), ("3", "13"), ("yes", "No, yes would be wrong"), ("yes", "maybe"), ("red", "red and blue"),
        ("left", "above and to the left"), ("at the top", "in the top left corner"), ("dog", "dogma"), ("red", ""),
    ],
)  # fmt: skip
def test_different(answer, reply):
    assert not agrees(SynthTurn("?", answer), reply)


@pytest.mark.parametrize("reply", ["B", "b.", "(B)", "The answer is B", "Answer: B. a car", "a car", "B\nbecause"])
def test_option_chosen(reply):
    assert agrees(CHOICE, reply)


@pytest.mark.parametrize("reply", ["A", "D", "a red car", "C. a car", "A car or a boat", ""])
def test_other_option_or_none_chosen(reply):
    assert not agrees(CHOICE, reply)


def test_a_sentence_is_compared_by_its_fact():
    sentence = SynthTurn("How many?", "There are three dogs near the big old house.", correct="3")
    assert is_short(sentence)
    assert agrees(sentence, "3")
    assert not is_short(SynthTurn("How many?", sentence.answer))


def test_verdicts():
    assert says_yes("Yes.")
    assert not says_yes("No, but yes elsewhere")
    assert not says_yes("Perhaps")


def test_options_written_into_the_question_are_found_and_replaced():
    assert options_in(CHOICE.question) == CHOICE.options
    assert options_in("Which? A. one, B. two") == ()
    assert options_in("Plan:\nB. second\nC. third") == ()
    asked = with_options(f"{CHOICE.question}\nAnswer with the letter.", ("x", "y"))
    assert asked == "Which?\nA. x\nB. y\nAnswer with the letter."
    assert as_asked(CHOICE) == CHOICE.question
    assert as_asked(SynthTurn("Which?", "y", ("x", "y"))) == "Which?\nA. x\nB. y"


def test_choices_by_letter_and_by_text():
    assert choices_of(CHOICE).stated == choices_of(CHOICE).answered == 1
    assert choices_of(SynthTurn("?", "y", ("x", "y"), "B")).answered == 1
    assert choices_of(SynthTurn("Who?", "a dog")) is None
