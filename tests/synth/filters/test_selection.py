"""Thresholds, the best of a kind, caps; recorded, refused when scores have changed."""

from collections import Counter

import numpy as np
import pyarrow
import pytest

from fusionvl.synth.caps import Cap, over_cap
from fusionvl.synth.selection import Limit, SelectionRules, asked_rules, default_caps, default_limits, select

IDS = [f"{number:02}" for number in range(10)]
KINDS = ["a"] * 5 + ["b"] * 5


ROWS = pyarrow.table({"id": IDS, "kind": KINDS})


def scores(**columns):
    made = {name: pyarrow.chunked_array([column]) for name, column in columns.items()}
    numbers = {name: made[name].cast("float64") for name in made if pyarrow.types.is_integer(made[name].type)}
    return pyarrow.table(made | numbers)


def chosen(rules, **columns):
    """The ids that are kept, and those that each rule dropped."""
    found = select(ROWS, [scores(**columns)], rules)
    dropped = {name: [IDS[place] for place in np.flatnonzero(marks)] for name, marks in found.dropped.items()}
    return [IDS[place] for place in np.flatnonzero(found.kept)], dropped


def test_scores_of_several_filters_are_one():
    rules = SelectionRules({"x": Limit(least=1), "y": Limit(least=1)}, {}, {"g": Cap(count=1)})
    tables = [scores(x=[0] + [1] * 9), scores(g=[3] * 5 + [4] * 5), scores(y=[1] * 8 + [0] * 2)]
    found = select(ROWS, tables, rules)
    assert np.flatnonzero(found.kept).tolist() == [1, 5]
    assert found.counts == {"x": 1, "y": 2, "g": 5}


def test_limits_drop_what_is_outside_and_none_passes():
    kept, dropped = chosen(SelectionRules({"x": Limit(2, 7)}, {}, {}), x=[0, 1, 2, 3, None, 5, 6, 7, 8, 9])
    assert kept == ["02", "03", "04", "05", "06", "07"]
    assert dropped == {"x": ["00", "01", "08", "09"]}


def test_every_limit_that_a_row_breaks_is_counted():
    rules = SelectionRules({"x": Limit(least=1), "y": Limit(most=1)}, {}, {})
    assert chosen(rules, x=[0] + [1] * 9, y=[5] + [1] * 9)[1] == {"x": ["00"], "y": ["00"]}


def test_the_best_of_each_kind_among_those_left():
    rules = SelectionRules({"x": Limit(most=8)}, {"x": 0.5}, {})
    kept, dropped = chosen(rules, x=list(range(10)))
    assert kept == ["02", "03", "04", "07", "08"]
    assert dropped == {"x": ["09"], "best x": ["00", "01", "05", "06"]}


def test_duplicates_keep_one_row_of_a_group_that_passes_the_limits():
    rules = SelectionRules({"x": Limit(least=1)}, {}, {"g": Cap(count=1)})
    kept, dropped = chosen(rules, x=[0] + [1] * 9, g=["00", "00", "00", "03", None, "00", "06", "07", "08", "09"])
    assert kept == ["01", "03", "04", "05", "06", "07", "08", "09"], "the group's first row fell, the second stays"
    assert dropped == {"x": ["00"], "g": ["02"]}, "and groups are counted within a kind"


def drop(names, cap):
    """What is left of each name."""
    over = over_cap(pyarrow.array(names), cap)
    return Counter(name for name, goes in zip(names, over, strict=True) if not goes)


def test_share_is_of_what_is_left():
    left = drop(["yes"] * 900 + ["no"] * 100 + ["red"] * 60, Cap(share=0.5))
    assert left == {"yes": 160, "no": 100, "red": 60}
    assert drop(["yes", "no"] * 5, Cap(share=0.3)) == {"yes": 5, "no": 5}, "two names cannot both be below a half"


def test_evenness_is_within_a_family():
    letters = ["A of 4"] * 90 + ["B of 4", "C of 4", "D of 4"] * 10 + ["A of 2"] * 7
    left = drop(letters, Cap(evenness=1.2))
    assert left["A of 4"] <= 0.3 * sum(count for name, count in left.items() if name.endswith("4")) < 14
    assert left["B of 4"] == 10
    assert left["A of 2"] == 7


def test_a_row_with_several_names_goes_when_one_is_used_up():
    assert over_cap(pyarrow.array(["x\ny", "x", "y\nz", None, "z"]), Cap(count=1)).tolist() == [
        False, True, True, False, False,
    ]  # fmt: skip
    assert over_cap(pyarrow.array([None, None], pyarrow.string()), Cap(count=1)).tolist() == [False, False]


@pytest.mark.parametrize("wrong", [{}, {"count": 1, "share": 0.5}, {"count": 0}, {"share": 1.5}, {"evenness": 0.5}])
def test_faulty_caps(wrong):
    with pytest.raises(ValueError, match="cap"):
        Cap(**wrong)


def test_faulty_requests():
    with pytest.raises(ValueError, match="no filter has given 'y'; there are x"):
        chosen(SelectionRules({"y": Limit(most=1)}), x=[0] * 10)
    with pytest.raises(ValueError, match="'g' holds names, no numbers"):
        chosen(SelectionRules({"g": Limit(most=1)}), g=["a"] * 10)
    with pytest.raises(ValueError, match="above 0 and at most 1, got 2"):
        SelectionRules(best={"x": 2})
    assert chosen(SelectionRules(), x=[0] * 10)[0] == IDS, "defaults of filters that did not run ask for nothing"


def test_command_line_forms():
    rules = asked_rules(["x=0.5:", "judge_worst=:7"], ["y=0.8"], ["answers=0.25", "letters=off", "z=3"])
    assert rules.limits == default_limits() | {"x": Limit(least=0.5), "judge_worst": Limit(most=7)}
    assert rules.best == {"y": 0.8}
    changed = {"answers": Cap(share=0.25), "z": Cap(count=3)}
    assert rules.caps == {name: cap for name, cap in default_caps().items() if name != "letters"} | changed


@pytest.mark.parametrize(
    ("limit", "best", "cap", "told"),
    [
        ("x=5", "", "", r"'x=5' is not of the form SCORE=LEAST:MOST.*no colon"),
        ("x=a:b", "", "", r"'x=a:b' is not of the form SCORE=LEAST:MOST"),
        (":7", "", "", r"it names no score"),
        ("", "x", "", r"'x' is not of the form SCORE=SHARE"),
        ("", "x=most", "", r"'x=most' is not of the form SCORE=SHARE"),
        ("", "", "g=x", r"'g=x' is not of the form NAME=COUNT"),
        ("", "", "g=0", r"'g=0' .*a cap's count"),
    ],
)
def test_faulty_command_line_forms(limit, best, cap, told):
    with pytest.raises(ValueError, match=told):
        asked_rules(*([text] if text else [] for text in (limit, best, cap)))
