"""Every scorer and summary against hand-worked cases; the arithmetic stands in each case's comment."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionvl.eval import scorers
from fusionvl.eval.answer_parsing import parse_choice, parse_yes_no
from fusionvl.eval.task import Sample
from fusionvl.eval.tasks.registry import TASKS, find_task

CASES = Path(__file__).parent / "cases"
SCORERS = ("choice", "yes_no", "identical", "exact", "contains", "vqa", "anls", "relaxed")
SUMMARIES = sorted(path.stem for path in CASES.glob("summary_*.json"))


def cases(names):
    found = []
    for name in names:
        for number, case in enumerate(json.loads((CASES / f"{name}.json").read_text())):
            assert case["comment"], f"{name}, case {number}: say why"
            found.append(pytest.param(name, case, id=f"{name}-{number}"))
    return found


def sample(identity, *, parsed, score, reference, details):
    return Sample(identity, "?", "!", parsed, score, "", reference, details, "stop")


@pytest.mark.parametrize(("name", "case"), cases(SCORERS))
def test_scores(name, case):
    score = getattr(scorers, f"score_{name}")
    more = {name: case[name] for name in ("options", "formula") if name in case}
    verdict = score(case["answer"], case["reference"], **more)
    assert verdict.score == pytest.approx(case["score"], abs=1e-12), case["comment"]
    assert verdict.parsed == case["parsed"], case["comment"]
    assert verdict.reason == case.get("reason", ""), case["comment"]


@pytest.mark.parametrize(("name", "case"), cases(SUMMARIES))
def test_summaries(name, case):
    samples = [sample(str(number), **given) for number, given in enumerate(case["samples"])]
    summary = find_task(case["task"]).summarise(samples)
    expected = case["metrics"]
    assert {metric: summary[metric] for metric in expected} == pytest.approx(expected), case["comment"]


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_whatever_is_said_is_an_option_or_is_not_understood(answer):
    options = {"A": "cat", "B": "2.5", "C": "", "D": "a (b)"}
    chosen = parse_choice(answer, options)
    decided = parse_yes_no(answer)
    assert chosen.value in (None, *options)
    assert decided.value in (None, "yes", "no")
    assert (chosen.value is None) == bool(chosen.reason)
    assert (decided.value is None) == bool(decided.reason)


@given(st.sampled_from("ABCD"), st.sampled_from("ABCD"), st.sampled_from([" ", " or ", ", ", " and ", "\n", "/"]))
@settings(max_examples=200, deadline=None)
def test_two_letters_are_understood_only_when_they_are_one(first, second, between):
    chosen = parse_choice(first + between + second, dict.fromkeys("ABCD", ""))
    assert chosen.value == (first if first == second else None)


def test_every_scorer_has_cases():
    functions = {name.removeprefix("score_") for name in vars(scorers) if name.startswith("score_")}
    assert functions == set(SCORERS)
    assert {path.stem for path in CASES.glob("*.json")} == {*SCORERS, *SUMMARIES}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_nothing_scored_is_not_summarised(task):
    unjudged = sample("1", parsed=None, score=None, reference="yes", details={})
    with pytest.raises(ValueError, match="no sample has a score"):
        task.summarise([unjudged])


def test_an_unknown_task_is_told_with_those_there_are():
    with pytest.raises(ValueError, match=r"'popes'; there are easy_vqa, .*pope, .*own"):
        find_task("popes")
