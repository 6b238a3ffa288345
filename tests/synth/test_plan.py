import json
from collections import Counter

import pytest

from fusionvl.synth.plan import Plan, open_captions
from fusionvl.synth.rows import Row, SynthTurn, row_from_dict, row_id, seed_of


def text_file(folder, *lines, name="captions.txt"):
    path = folder / name
    path.write_bytes("\n".join(lines).encode())
    return path


def every_row(plan):
    return [row for shard in range(plan.shards) for row in plan.rows(shard)]


def test_captions_are_found_whatever_their_language(tmp_path):
    lines = ["\ufeffa red apple", "一只红苹果", "красное яблоко ", "تفاحة حمراء", "🍎"]
    captions = open_captions(text_file(tmp_path, *lines))
    assert [captions[index] for index in range(len(captions))] == ["a red apple", *map(str.strip, lines[1:])]


def test_empty_and_repeated_captions_are_left_out_and_counted(tmp_path, caplog):
    captions = open_captions(text_file(tmp_path, "a  cat", "", "a dog", "   ", "a cat ", "cafe\u0301", "caf\u00e9"))
    assert [captions[index] for index in range(len(captions))] == ["a cat", "a dog", "caf\u00e9"]
    assert (captions.empty, captions.repeated) == (2, 2)
    assert "3 captions; left out: 2 empty, 2 repeated" in caplog.text


def test_captions_from_jsonl(tmp_path):
    path = text_file(tmp_path, '{"caption": "a cat", "id": 1}', '{"caption": "a dog"}', name="captions.jsonl")
    captions = open_captions(path)
    assert [captions[0], captions[1]] == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("a.jsonl", ['{"caption": "a"}', '{"text": "b"}'], "a.jsonl, line 2: no caption can be read.*KeyError"),
        ("a.jsonl", ["[1]"], "a.jsonl, line 1: no caption can be read"),
        ("a.jsonl", ['{"caption": 3}'], "line 1: no caption"),
        ("a.txt", ["", " "], "a.txt holds no caption: 2 empty lines"),
        ("a.csv", ["a"], "captions are read from .txt"),
    ],
)
def test_captions_that_cannot_be_read(tmp_path, name, lines, message):
    with pytest.raises(ValueError, match=message):
        open_captions(text_file(tmp_path, *lines, "" if name == "a.txt" else "{}", name=name))


def test_captions_in_another_encoding_and_missing_ones(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"ok\ncaf\xe9\n")
    with pytest.raises(ValueError, match=r"latin.txt, line 2: .*UnicodeDecodeError"):
        open_captions(path)
    with pytest.raises(ValueError, match="There is no file of captions"):
        open_captions(tmp_path / "none.txt")


def test_every_row_of_a_plan_is_another_one_and_kinds_are_spread():
    plan = Plan("scenes", "train", 0, {"SynthColor": 50, "ConvLong": 25}, shard_size=20)
    rows = every_row(plan)
    assert Counter(row.kind for row in rows) == {"SynthColor": 50, "ConvLong": 25}
    assert len({row.id for row in rows}) == 75
    assert plan.shards == 4
    assert [plan.rows_in(shard) for shard in range(4)] == [19, 19, 19, 18]
    for shard in range(4):
        assert {row.kind for row in plan.rows(shard)} == {"SynthColor", "ConvLong"}


def test_seed_split_and_source_make_other_rows():
    plans = [
        Plan(source, split, seed, {"SynthColor": 5}, 5)
        for source, split, seed in [("a", "train", 0), ("b", "train", 0), ("a", "held-out", 0), ("a", "train", 1)]
    ]
    assert len({row.id for plan in plans for row in every_row(plan)}) == 20
    assert every_row(plans[0]) == every_row(plans[0])


def test_captions_are_used_evenly_and_kinds_begin_with_different_ones(tmp_path):
    captions = open_captions(text_file(tmp_path, *(f"caption {number}" for number in range(10))))
    rows = every_row(Plan("c", "train", 0, {"SynthColor": 25, "ConvLong": 4}, 100, captions))
    used = Counter(row.caption for row in rows if row.kind == "SynthColor")
    assert len(used) == 10
    assert set(used.values()) == {2, 3}
    assert len({row.id for row in rows}) == 29
    first = {kind: [row.caption for row in rows if row.kind == kind][:4] for kind in ("SynthColor", "ConvLong")}
    assert first["SynthColor"] != first["ConvLong"]


@pytest.mark.parametrize(
    ("counts", "message"),
    [({}, "name at least one kind"), ({"SynthColour": 1}, "no kind 'SynthColour', only SynthColor,"),
     ({"SynthColor": 0}, "SynthColor must be at least 1, not 0")],
)  # fmt: skip
def test_plans_that_cannot_be(counts, message):
    with pytest.raises(ValueError, match=message):
        Plan("a", "train", 0, counts, 5)


def test_ids_and_seeds_are_fixed():
    """What they are decides about every data set made so far: a change here is a change of all of them."""
    assert row_id("scenes", "a cat", "SynthColor", "0") == "765f7f2245b681e617e62451c8787fe3"
    assert seed_of("0" * 32, "describe") == 300555524
    assert seed_of("0" * 32, "describe", 1) == 1186860360


def test_a_row_survives_its_line():
    turns = (SynthTurn("Which?\nA. 一", "A", options=("一", "b"), correct="A"), SynthTurn("q", "a"))
    row = Row(id="a" * 32, kind="MultiChoice", turns=turns, seeds={"describe": 3}, truth={"things": [1]})
    assert row_from_dict(json.loads(json.dumps(row.to_dict()))) == row


@pytest.mark.parametrize("values", [{"id": "a"}, {"id": "a", "kind": "b", "color": "red"}])
def test_values_that_are_no_row(values):
    with pytest.raises(ValueError, match="Not a row"):
        row_from_dict(values)
