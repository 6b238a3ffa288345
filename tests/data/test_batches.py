"""Global batches: like samples together, the same for any number of processes, resumable at every step."""

import itertools

import numpy as np
import pytest

from fusionvl.data.batches import GroupedBatches, grouped_batches, rank_share
from fusionvl.data.mixture import open_mixture

SIZE = 8


@pytest.fixture
def mixture(files):
    files.llava("a.json", 300)
    files.llava("b.jsonl", 100)
    entries = [{"json_path": str(files.folder / name)} for name in ("a.json", "b.jsonl")]
    return open_mixture({"datasets": entries}, seed=4)


def steps(mixture, start, count, **options):
    return [batch.tolist() for batch in itertools.islice(grouped_batches(mixture, start, SIZE, **options), count)]


def test_each_position_once(mixture):
    batches = steps(mixture, 0, 64, group=16)
    assert all(len(batch) == SIZE for batch in batches)
    for first in range(0, 64, 16):
        positions = sorted(itertools.chain(*batches[first : first + 16]))
        assert positions == list(range(first * SIZE, (first + 16) * SIZE))


@pytest.mark.parametrize("step", [0, 1, 15, 16, 17, 40])
def test_resume_at_any_step(mixture, step):
    whole = steps(mixture, 0, 64, group=16)
    assert steps(mixture, step * SIZE, 64 - step, group=16) == whole[step:]
    assert GroupedBatches(mixture, SIZE, 16).at(step).tolist() == whole[step]


def test_batches_are_of_one_kind_and_of_similar_length(mixture):
    group = 16
    batches = [np.array(batch) for batch in steps(mixture, 0, group, group=group)]
    kinds = [mixture.statistics(batch)[0] for batch in batches]
    assert sum(0 < kind.sum() < SIZE for kind in kinds) <= 1
    spread = np.mean([np.ptp(mixture.statistics(batch)[1]) for batch in batches])
    plain = np.mean([np.ptp(mixture.statistics(np.arange(n, n + SIZE))[1]) for n in range(0, group * SIZE, SIZE)])
    assert spread < 0.35 * plain
    longest = [mixture.statistics(batch)[1].max() for batch in batches]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


def test_statistics_are_those_of_the_samples(mixture):
    positions = np.array([0, 5, 399, 17])
    has_image, lengths = mixture.statistics(positions)
    for number, position in enumerate(positions.tolist()):
        sample = mixture.read(mixture.order.at(position))
        assert has_image[number] == (sample.image is not None)
        assert lengths[number] >= sum(len(turn.question) + len(turn.answer) for turn in sample.turns)


def test_without_grouping_batches_are_consecutive(mixture):
    assert [sorted(batch) for batch in steps(mixture, 16, 3, group=1)] == [
        list(range(n, n + SIZE)) for n in (16, 24, 32)
    ]


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_any_number_of_processes_has_the_same_global_batches(mixture, world_size):
    expected = steps(mixture, 80, 20)
    ranks = [
        [
            rank_share(batch, rank, world_size).tolist()
            for batch in itertools.islice(grouped_batches(mixture, 80, SIZE), 20)
        ]
        for rank in range(world_size)
    ]
    for step, batch in enumerate(expected):
        shares = [ranks[rank][step] for rank in range(world_size)]
        assert all(len(share) == SIZE // world_size for share in shares)
        assert sorted(itertools.chain(*shares)) == sorted(batch)


def test_processes_have_similar_lengths(mixture):
    batch = GroupedBatches(mixture, 64).at(0)
    sums = [mixture.statistics(rank_share(batch, rank, 4))[1].sum() for rank in range(4)]
    assert max(sums) < 1.1 * min(sums)


def test_faulty_requests(mixture):
    with pytest.raises(ValueError, match="12 samples consumed are no whole number of global batches of 8"):
        grouped_batches(mixture, 12, SIZE)
    with pytest.raises(ValueError, match="at least 1"):
        GroupedBatches(mixture, 0)
    with pytest.raises(ValueError, match="a global batch of 8 cannot be shared evenly by 3"):
        rank_share(np.arange(8), 0, 3)
    with pytest.raises(ValueError, match="no process 2 among 2"):
        rank_share(np.arange(8), 2, 2)
