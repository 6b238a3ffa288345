"""The arithmetic of the table, worked by hand."""

import math

import pytest

from fusionvl.ablation.results import (
    Result,
    append_result,
    mean_and_deviation,
    paired_difference,
    read_results,
)
from fusionvl.ablation.table import as_markdown, rows, told


def result(variant, seed, colour, shape, seconds=0.5):
    counts = {"colour": [colour, 10], "shape": [shape, 30]}
    return Result(variant, seed, "abc", "def", 1234, 16, 4, 40.4, counts, 1.5, seconds, 0.0123, None)


def test_accuracy_is_over_all_questions():
    assert result("full", 0, 5, 15).accuracy == 20 / 40
    assert result("full", 0, 5, 30).accuracy_of("colour") == 0.5


def test_mean_and_sample_deviation():
    assert mean_and_deviation([1.0, 2.0, 6.0]) == (3.0, pytest.approx(math.sqrt(7)))
    assert mean_and_deviation([4.0]) == (4.0, None)


def test_a_paired_difference():
    """Differences 1, 2 and 6: mean 3, deviation sqrt(7), t for two degrees of freedom 4.303."""
    found = paired_difference({0: 11.0, 1: 22.0, 2: 36.0, 9: 0.0}, {0: 10.0, 1: 20.0, 2: 30.0, 8: 5.0})
    assert (found.mean, found.seeds) == (3.0, 3)
    assert found.half_width == pytest.approx(4.303 * math.sqrt(7) / math.sqrt(3), rel=1e-4)
    assert not found.is_clear
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    alone = paired_difference({0: 3.0}, {0: 1.0})
    assert (alone.mean, alone.half_width, alone.is_clear) == (2.0, None, False)


def test_pairing_removes_what_seeds_share():
    """Scores vary by tens, the difference by nothing."""
    found = paired_difference({0: 0.1, 1: 0.5, 2: 0.9}, {0: 0.2, 1: 0.6, 2: 1.0})
    assert found.half_width == pytest.approx(0, abs=1e-12)
    assert found.is_clear


def test_many_seeds():
    """t for 16 degrees of freedom is 2.120, 8 % above the normal's 1.960."""
    ours = {seed: float(seed % 2) for seed in range(17)}
    found = paired_difference(ours, dict.fromkeys(range(17), 0.0))
    assert found.half_width == pytest.approx(2.120 * math.sqrt(72 / 17 / 16 / 17), rel=1e-3)


def test_the_table():
    results = [
        result("full", 0, 10, 20), result("full", 1, 10, 30),
        result("plain", 1, 5, 15), result("plain", 0, 5, 5, None),
    ]  # fmt: skip
    head, body = rows(results, ["full", "unfinished", "plain"])
    assert head[5:9] == ["exact answers, %", "difference to full", "colour", "shape"]
    full, plain = (dict(zip(head, row, strict=True)) for row in body)
    assert full["variant"] == "full"
    assert full["difference to full"] == ""
    assert full["exact answers, %"] == "87.5 ± 17.7"
    assert (full["colour"], full["shape"]) == ("100.0 ± 0.0", "83.3 ± 23.6")
    assert (full["parameters"], full["image + latent tokens"], full["prompt tokens"]) == ("1,234", "16 + 4", "40")
    assert (plain["s a step"], plain["ms an answer"], plain["runs"]) == ("0.500", "12.3", "2")
    # Differences -50 and -50 percentage points.
    assert plain["difference to full"] == "-50.0 [-50.0, -50.0] *"
    lines = as_markdown(results, ["full", "plain"]).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert all(line.startswith("| ") for line in lines)


def test_a_difference_of_one_seed_has_no_interval():
    assert told(paired_difference({0: 0.6}, {0: 0.5})) == "+10.0 (one seed)"


def test_a_table_without_the_first_variant():
    _, body = rows([result("plain", 0, 5, 5)], ["full", "plain"])
    assert body[0][6] == ""


def test_results_survive_a_kill(tmp_path):
    path = tmp_path / "results.jsonl"
    first, second = result("full", 0, 1, 2), result("full", 1, 3, 4)
    append_result(path, first)
    with path.open("a") as lines:
        lines.write('{"variant": "plain", "se')  # killed here
    append_result(path, second)
    assert read_results(path) == [first, second]
    assert read_results(tmp_path / "missing.jsonl") == []


def test_a_line_that_is_no_result(tmp_path):
    (tmp_path / "results.jsonl").write_text('{"accuracy": 1}\n')
    with pytest.raises(ValueError, match=r"results\.jsonl, line 1: .*accuracy"):
        read_results(tmp_path / "results.jsonl")
