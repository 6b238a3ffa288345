"""Filters against rows of which it is known what is wrong with them."""

from collections import Counter

import pytest
from fake_client import knowing

from fusionvl.synth.corruptions import named_corruptions
from fusionvl.synth.filter_quality import UNTOUCHED, as_table, measure_filters, spoil_run
from fusionvl.synth.filters import NEEDS_NO_MODEL
from fusionvl.synth.filters.filter import FilterModels
from fusionvl.synth.shard_files import finished_rows


def test_filters_find_what_was_spoiled(runs):
    folder, target = runs.write(runs.rows(160)), runs.folder / "spoiled"
    spoiled = spoil_run(folder, target, each=4, seed=0)
    faults = set(spoiled.fault.values())
    assert {"leaked caption", "wrong count", "swapped colour", "wrong option", "near-duplicate", UNTOUCHED} <= faults
    assert list(spoiled.fault.values()).count(UNTOUCHED) == 80
    rows = list(finished_rows(target))
    assert {row.id for row in rows} == spoiled.fault.keys()
    assert len(rows) == len(spoiled.fault)
    assert spoil_run(folder, runs.folder / "again", each=4, seed=0) == spoiled, "the seed decides"
    assert list(finished_rows(runs.folder / "again")) == rows
    found = {each.name: each for each in measure_filters(spoiled, target, NEEDS_NO_MODEL)}
    table = as_table(spoiled, list(found.values()))
    for name in ("rules", "images", "duplicates"):
        assert found[name].precision == 1, table
        assert found[name].recall > 0.8, table
    assert found["rules"].found["wrong count"] == 0, "a rule cannot know"
    assert found["balance"].found["letter skewed to A"] > 0, table
    lines = table.splitlines()
    assert lines[0].split() == ["corruption", "rows", *NEEDS_NO_MODEL]
    assert next(line for line in lines if line.startswith("empty answer")).split()[2:] == ["4", "*4", ".", ".", "."]


def test_closed_book_finds_wrong_answers(runs, answering):
    rows = runs.rows(80)
    target = runs.folder / "spoiled"
    spoiled = spoil_run(runs.write(rows), target, each=3, seed=1)
    answering(knowing(rows))
    models = FilterModels(text="http://localhost/v1#knowing", votes=1)
    (found,) = measure_filters(spoiled, target, ["closed-book"], models)
    assert found.recall == 1
    assert found.found[UNTOUCHED] == 0
    assert found.found["leaked caption"] <= 3


def test_corruptions_are_named(runs):
    chosen = named_corruptions(["wrong count", "empty answer"])
    folder = runs.write(runs.rows(40))
    spoiled = spoil_run(folder, runs.folder / "spoiled", each=5, seed=0, corruptions=chosen)
    assert Counter(spoiled.fault.values()) == {UNTOUCHED: 20, "wrong count": 5, "empty answer": 5}
    with pytest.raises(ValueError, match="no corruption 'typo', only leaked caption, "):
        named_corruptions(["typo"])


def test_a_run_of_one_row_measures_nothing(runs):
    with pytest.raises(ValueError, match="at least two good rows, got 1"):
        spoil_run(runs.write(runs.rows(1), shards=1), runs.folder / "spoiled", each=1, seed=0)
