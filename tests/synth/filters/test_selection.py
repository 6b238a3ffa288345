"""Thresholds, the best of a kind, caps; recorded, repeatable, refused when scores have changed."""

import json
from collections import Counter

import pytest

from fusionvl.synth.caps import Cap, capped
from fusionvl.synth.scores import ScoreTable
from fusionvl.synth.selection import (
    Limit,
    Rules,
    parsed_best,
    parsed_cap,
    parsed_limit,
    recorded_selection,
    select,
    write_selection,
)

IDS = [f"{number:02}" for number in range(10)]
KINDS = ["a"] * 5 + ["b"] * 5


def table(**columns):
    scores = ScoreTable(list(IDS))
    scores.put("test", {"set": 1}, columns)
    return scores


def kept(rules, **columns):
    return select(table(**columns), KINDS, rules)


def test_limits_drop_what_is_outside_and_none_passes():
    chosen = kept(Rules({"x": Limit(2, 7)}, {}, {}), x=[0, 1, 2, 3, None, 5, 6, 7, 8, 9])
    assert chosen.kept == ("02", "03", "04", "05", "06", "07")
    assert chosen.dropped == dict.fromkeys(("00", "01", "08", "09"), ("x",))


def test_all_reasons_are_named():
    chosen = kept(Rules({"x": Limit(least=1), "y": Limit(most=1)}, {}, {}), x=[0] + [1] * 9, y=[5] + [1] * 9)
    assert chosen.dropped == {"00": ("x", "y")}


def test_the_best_of_each_kind_among_those_left():
    rules = Rules({"x": Limit(most=8)}, {"x": 0.5}, {})
    assert kept(rules, x=list(range(10))).kept == ("02", "03", "04", "07", "08")


def test_duplicates_keep_one_row_of_a_group_that_passes_the_limits():
    rules = Rules({"x": Limit(least=1)}, {}, {"g": Cap(count=1)})
    chosen = kept(rules, x=[0] + [1] * 9, g=["00", "00", "00", "03", None, "00", "06", "07", "08", "09"])
    assert chosen.kept == ("01", "03", "04", "05", "06", "07", "08", "09"), (
        "the group's first row fell, the second stays"
    )
    assert chosen.dropped == {"00": ("x",), "02": ("g",)}, "and groups are counted within a kind"


def drop(names, cap):
    """What is left of each name."""
    over = capped([("kind", name) for name in names], cap)
    return Counter(name for place, name in enumerate(names) if place not in over)


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
    rows = [("k", "x\ny"), ("k", "x"), ("k", "y\nz"), ("k", None), ("other", "x")]
    assert capped(rows, Cap(count=1)) == [1, 2]


@pytest.mark.parametrize("wrong", [{}, {"count": 1, "share": 0.5}, {"count": 0}, {"share": 1.5}, {"evenness": 0.5}])
def test_faulty_caps(wrong):
    with pytest.raises(ValueError, match="cap"):
        Cap(**wrong)


def test_record_repeats_the_selection_and_notices_other_scores(tmp_path):
    scores = table(x=list(range(10)), g=["a", "b"] * 5)
    rules = Rules({"x": Limit(least=2)}, {"x": 0.9}, {"g": Cap(count=2)})
    chosen = select(scores, KINDS, rules)
    record = write_selection(tmp_path, scores, rules, chosen)
    assert record["kept"] == len(chosen.kept)
    assert record["rules"]["limits"]["x"] == {"least": 2, "most": None}
    assert json.loads((tmp_path / "selection.json").read_text()) == record
    scores.write(tmp_path)
    assert recorded_selection(tmp_path, scores, KINDS) == chosen
    with pytest.raises(ValueError, match="made from other scores"):
        recorded_selection(tmp_path, table(x=[5] * 10), KINDS)


def test_faulty_requests():
    with pytest.raises(ValueError, match="no filter has given 'y'; there are x"):
        kept(Rules({"y": Limit(most=1)}), x=[0] * 10)
    with pytest.raises(ValueError, match="3 kinds for 10 scored rows"):
        select(table(x=[0] * 10), ["a"] * 3, Rules())
    with pytest.raises(ValueError, match="above 0 and at most 1, got 2"):
        Rules(best={"x": 2})
    assert kept(Rules(), x=[0] * 10).kept == tuple(IDS), "defaults of filters that did not run ask for nothing"


def test_command_line_forms():
    assert parsed_limit("x=0.5:") == ("x", Limit(least=0.5))
    assert parsed_limit("x=:7") == ("x", Limit(most=7))
    assert parsed_best("x=0.8") == ("x", 0.8)
    assert parsed_cap("g=1") == ("g", Cap(count=1))
    assert parsed_cap("g=0.25") == ("g", Cap(share=0.25))
    assert parsed_cap("g=off") == ("g", None)
    for parse, text in ((parsed_limit, "x=5"), (parsed_limit, "x=a:b"), (parsed_best, "x"), (parsed_cap, "g=x")):
        with pytest.raises(ValueError, match=text):
            parse(text)
