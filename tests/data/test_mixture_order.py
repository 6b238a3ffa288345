"""The order of a mixture: each sample once a pass, exact shares, and the same from any position in any process."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from fusionvl.data.mixture_order import BLOCK, MixtureOrder, taken
from fusionvl.data.permutation import permuted, shuffled


@pytest.mark.parametrize("size", [1, 2, 3, 5, 10, 99, 100, 101, 4096, 10_007])
def test_permutation_is_one(size):
    for label in ("a", "b"):
        assert sorted(permuted(np.arange(size), size, label).tolist()) == list(range(size))


def test_permutation_of_a_few_numbers_is_that_of_all():
    whole = permuted(np.arange(1000), 1000, "x")
    some = np.array([999, 0, 17, 17])
    assert permuted(some, 1000, "x").tolist() == whole[some].tolist()


@pytest.mark.parametrize("size", [3, 8, 13])
def test_permutations_are_evenly_spread(size):
    trials = 400 * size
    ends = Counter((int(p[0]), int(p[-1])) for p in (permuted(np.arange(size), size, f"{t}") for t in range(trials)))
    pairs = size * (size - 1)
    expected = trials / pairs
    deviation = sum((ends[i, j] - expected) ** 2 / expected for i in range(size) for j in range(size) if i != j)
    # Chi-squared has mean pairs - 1 and variance 2 (pairs - 1): five standard deviations.
    assert deviation < pairs - 1 + 5 * (2 * (pairs - 1)) ** 0.5


def test_large_permutation_has_no_visible_structure():
    size = 13_000_000
    values = permuted(np.arange(100_000), size, "large")
    assert len(np.unique(values)) == 100_000
    assert values.mean() == pytest.approx(size / 2, rel=0.01)
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(np.arange(100_000), values)[0, 1]) < 0.02


def test_shuffled_keeps_the_values():
    values = np.array([5, 5, 1, 9])
    assert sorted(shuffled(values, "a").tolist()) == [1, 5, 5, 9]


def test_every_process_and_version_computes_this():
    """Resuming a run depends on these numbers: they may never change."""
    assert permuted(np.arange(8), 1000, "golden").tolist() == GOLDEN_PERMUTATION
    places = MixtureOrder((1000, 300), seed=7).places(np.array([0, 1, 2, 3, 4, 5, 1299, 1300, 4096, 10**6]))
    assert [list(values) for values in zip(*(v.tolist() for v in places), strict=True)] == GOLDEN_PLACES


GOLDEN_PERMUTATION = [904, 273, 972, 396, 903, 287, 286, 645]
GOLDEN_PLACES = [
    [0, 498, 0],
    [0, 453, 0],
    [0, 579, 0],
    [0, 898, 0],
    [0, 171, 0],
    [0, 465, 0],
    [0, 534, 0],
    [0, 803, 1],
    [0, 813, 3],
    [0, 928, 769],
]


def all_places(order, start, stop):
    return list(zip(*(values.tolist() for values in order.places(np.arange(start, stop))), strict=True))


@pytest.mark.parametrize("sizes", [(1,), (7,), (5000, 3), (4096, 4096), (10_000, 3_001, 17, 1)])
def test_natural_proportions_every_sample_once_in_each_round(sizes):
    order = MixtureOrder(sizes, seed=1)
    length = sum(sizes)
    rounds = [all_places(order, length * number, length * (number + 1)) for number in range(3)]
    for number, places in enumerate(rounds):
        assert sorted(places) == [(s, row, number) for s, size in enumerate(sizes) for row in range(size)]
    if length > 10:
        assert [place[:2] for place in rounds[0]] != [place[:2] for place in rounds[1]]


def test_natural_proportions_hold_in_every_block():
    sizes = (30_000, 9_000, 1_000)
    order = MixtureOrder(sizes, seed=1)
    sources = order.places(np.arange(40_000)).source
    for start in range(0, 40_000 - BLOCK, BLOCK):
        counts = np.bincount(sources[start : start + BLOCK], minlength=3)
        assert np.abs(counts - BLOCK * np.array(sizes) / 40_000).max() <= 2.5


def test_weights_give_exact_shares():
    order = MixtureOrder((50, 10_000, 7), seed=3, weights=(1, 2.5, 0.5))
    sources = order.places(np.arange(8 * BLOCK)).source
    for start in range(0, 8 * BLOCK, BLOCK):
        assert np.bincount(sources[start : start + BLOCK], minlength=3).tolist() == [1024, 2560, 512]


def test_weights_every_source_in_passes_of_its_own():
    sizes = (50, 1000)
    order = MixtureOrder(sizes, seed=3, weights=(3, 1))
    places = all_places(order, 0, 5 * BLOCK)
    for source, size in enumerate(sizes):
        own = [place for place in places if place[0] == source]
        rows = Counter(own)
        assert set(rows.values()) == {1}
        epochs = Counter(epoch for _, _, epoch in own)
        assert sorted(epochs) == list(range(len(epochs)))
        assert all(epochs[epoch] == size for epoch in range(len(epochs) - 1))


def test_counts_never_fall():
    shares = np.array([1e6, 3, 1, 1, 0.5, 12345.678])
    counts = np.array([taken(shares, total) for total in range(0, 300_000, 37)])
    assert (np.diff(counts, axis=0) >= 0).all()
    assert counts.sum(axis=1).tolist() == list(range(0, 300_000, 37))
    single = np.array([taken(np.array([2.0, 3.0, 5.0]), total) for total in range(200)])
    assert (np.diff(single, axis=0).sum(axis=1) == 1).all()
    assert (np.diff(single, axis=0) >= 0).all()
    assert taken(np.array([2.0, 3.0, 5.0]), 100).tolist() == [20, 30, 50]


def test_any_position_at_any_time():
    order = MixtureOrder((10_000, 3_001), seed=1)
    whole = all_places(order, 0, 30_000)
    positions = np.random.default_rng(0).integers(0, 30_000, 500)
    found = order.places(positions)
    assert list(zip(*(v.tolist() for v in found), strict=True)) == [whole[p] for p in positions]
    assert [tuple(order.at(p)) for p in (29_999, 0, 13_001, 13_000)] == [whole[p] for p in (29_999, 0, 13_001, 13_000)]
    assert all_places(order, 12_345, 20_000) == whole[12_345:20_000]


def test_seeds_differ():
    assert all_places(MixtureOrder((1000,), seed=0), 0, 100) != all_places(MixtureOrder((1000,), seed=1), 0, 100)


def test_another_process_finds_the_same():
    code = (
        "import numpy as np; from fusionvl.data.mixture_order import MixtureOrder; "
        "print([v.tolist() for v in MixtureOrder((900, 70), 5, (1.0, 2.0)).places(np.arange(4000, 4200))])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = [v.tolist() for v in MixtureOrder((900, 70), 5, (1.0, 2.0)).places(np.arange(4000, 4200))]
    assert out.strip() == str(here)


@pytest.mark.parametrize(
    ("sizes", "weights", "words"),
    [
        ((), None, "nothing to order"),
        ((3, 0), None, "nothing to order"),
        ((3, 3), (1.0,), "1 weights for 2 sources"),
        ((3,), (0.0,), "must be positive"),
        ((3,), (float("inf"),), "must be positive"),
    ],
)
def test_faulty_orders(sizes, weights, words):
    with pytest.raises(ValueError, match=words):
        MixtureOrder(sizes, 0, weights)


def test_positions_count_from_zero():
    with pytest.raises(ValueError, match="positions count from 0, got -1"):
        MixtureOrder((3,), 0).at(-1)
