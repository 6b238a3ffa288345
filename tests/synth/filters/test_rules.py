"""Rules: each fault is seen, and what only looks like one is not."""

from dataclasses import replace
from pathlib import Path

import pytest

from fusionvl.synth.filters.rules import FAULT_COLUMNS, RULE_COLUMNS, score_rules
from fusionvl.synth.rows import Row, SynthTurn

OPTIONS = ("red", "blue", "green", "pink")


def faults(*turns):
    scores = score_rules(Row("0", "ConvShort", turns=turns), Path())
    return {name.removeprefix("rule_") for name in FAULT_COLUMNS if scores[name]}


@pytest.mark.parametrize(
    ("question", "answer", "fault"),
    [
        ("According to the caption, who is there?", "a dog", "leakage"),
        ("Who is there?", "The description mentions a dog.", "leakage"),
        ("Who is there?", "As described, a dog.", "leakage"),
        ("Who is there?", "I'm sorry, I cannot see the image.", "refusal"),
        ("Who is there?", "It cannot be determined.", "refusal"),
        ("Who is there?", "a dog<|im_end|>", "marker"),
        ("<image>\nWho is there?", "a dog", "marker"),
        ("Who is {name}?", "a dog", "marker"),
        ("Who is there?", "  ", "empty"),
        ("How many dogs are there?", "several", "count"),
        ("How many dogs are there?", "2.5", "count"),
        ("How many dogs are there?", "about 3", "count"),
        ("Count the dogs.", "a red dog", "count"),
        ("How many dogs are there?", "There are dogs near the old house.", "count"),
        ("What color is the dog?", "large", "colour"),
    ],
)
def test_fault_is_seen(question, answer, fault):
    assert faults(SynthTurn(question, answer)) == {fault}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How many dogs are there?", "3"),
        ("How many dogs are there?", "Two."),
        ("How many dogs are there?", "None"),
        ("How many dogs are there?", "There are no dogs in the image."),
        ("How many dogs are there?", "There is a single dog by the door."),
        ("How many of the 12 doors are open?", "7 doors"),
        ("What color is the dog?", "It is reddish with a grey tail."),
        ("What does the sign say?", "DESCRIPTION OF WORKS"),
        ("What is written in the speech bubble?", "hello"),
        ("Which is the text on the sign?", "As mentioned on TV"),
        ("Is it red or blue?", "blue"),
    ],
)
def test_sound_turn_has_no_fault(question, answer):
    assert faults(SynthTurn(question, answer)) == set()


def choice(answer="B", correct="B", options=OPTIONS):
    lines = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=False))
    return SynthTurn(f"What color is it?\n{lines}", answer, options, correct)


@pytest.mark.parametrize("answer", ["B", "B.", "(B)", "B. blue", "blue", "Blue."])
@pytest.mark.parametrize("listed", [True, False])
def test_answer_among_the_options(answer, listed):
    turn = choice(answer)
    assert faults(turn if listed else replace(turn, options=None)) == set()


@pytest.mark.parametrize("answer", ["E", "yellow", "B. red", "A"])
def test_answer_that_is_not_the_right_option(answer):
    assert "not_an_option" in faults(choice(answer))


def test_options_must_differ():
    assert faults(choice(options=("red", "blue", "Red", "pink"))) == {"options"}
    assert faults(choice(options=("red", "blue", " ", "pink"))) == {"options"}
    assert "options" in faults(choice(answer="A", correct="A", options=("blue",)))


def test_answer_must_hold_its_fact():
    turn = SynthTurn("How many dogs are there?", "There are three dogs in the park.", correct="3")
    assert faults(turn) == set()
    assert faults(replace(turn, correct="4")) == {"fact"}


def test_a_question_asked_twice_and_a_row_without_turns():
    turn = SynthTurn("Who is there?", "a dog")
    assert faults(turn, replace(turn, answer="a cat")) == {"repeated"}
    assert faults() == {"turns"}


def test_the_longest_texts_are_measured():
    row = Row("0", "ConvShort", turns=(SynthTurn("Who?", "x"), SynthTurn("Who is there?", "x" * 5)))
    scores = score_rules(row, Path())
    assert scores.keys() == RULE_COLUMNS.keys()
    assert (scores["question_characters"], scores["answer_characters"]) == (13, 5)
