"""Optimizer steps: the same for any number of processes, resumable, of like rows, shared out evenly."""

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from fusionvl.data.batches import OptimizerSteps, TokenEstimate, share_of
from fusionvl.data.mixture import open_mixture
from fusionvl.data.mixture_order import MixtureOrder
from fusionvl.data.source import Shapes

LATENTS = (4, 16, 36, 64, 144)
ESTIMATE = TokenEstimate(image_tokens=100, max_length=4096)


@dataclass
class GeneratedRows:
    """Stands for a mixture: rows of 1 to 8 turns, every fifth without an image, which only their shapes describe."""

    sizes: tuple[int, ...] = (30_000, 2_000)
    seed: int = 4
    weights: tuple[float, ...] | None = None

    @property
    def order(self):
        return MixtureOrder(self.sizes, self.seed, self.weights)

    def rows(self, positions):
        places = self.order.places(np.asarray(positions))
        return places.source * max(self.sizes) + places.row

    def shapes(self, positions):
        rows = self.rows(positions)
        turns = 1 + (rows * 7919 % 101) // 13
        characters = turns * (40 + rows * 104729 % 1009)
        return Shapes(characters, turns, rows % 5 > 0)


def made(mixture=None, rows=4, passes=8, num_latents=LATENTS, **options):
    return OptimizerSteps(mixture or GeneratedRows(), rows, passes, num_latents, ESTIMATE, **options)


def first(steps, count, start=0):
    return list(itertools.islice(steps.starting_at(start), count))


def tokens(steps, step):
    """Of each row in each forward pass."""
    shapes = steps.mixture.shapes(step.passes.ravel())
    return ESTIMATE.of(shapes, step.num_latents).reshape(step.passes.shape)


def padding(steps, count):
    """Share of the tokens of forward passes that are padding."""
    counted = [tokens(steps, step) for step in first(steps, count)]
    computed = sum(each.max(axis=1).sum() * each.shape[1] for each in counted)
    return 1 - sum(each.sum() for each in counted) / computed


def test_every_position_of_a_group_comes_once():
    found = first(made(group=16), 64)
    assert [step.number for step in found] == list(range(64))
    for group in range(4):
        positions = np.sort(np.concatenate([step.passes.ravel() for step in found[16 * group : 16 * (group + 1)]]))
        assert positions.tolist() == list(range(512 * group, 512 * (group + 1)))


@pytest.mark.parametrize("start", [0, 1, 15, 16, 17, 40])
def test_the_rest_is_the_same_from_any_step(start):
    whole, rest = first(made(group=16), 50), first(made(group=16), 50 - start, start)
    for expected, found in zip(whole[start:], rest, strict=True):
        assert (found.number, found.num_latents) == (expected.number, expected.num_latents)
        assert np.array_equal(found.passes, expected.passes)


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_any_number_of_processes_shares_the_same_forward_passes(processes):
    for step in first(made(), 20):
        shares = [share_of(step, rank, processes) for rank in range(processes)]
        assert {share.shape for share in shares} == {(8 // processes, 4)}
        assert sorted(np.concatenate(shares).tolist()) == sorted(step.passes.tolist())


def test_latents_are_drawn_for_a_step_from_seed_stage_and_number():
    steps = made()
    drawn = [step.num_latents for step in first(steps, 500)]
    assert drawn == [made(rows=1, passes=64).draw(number) for number in range(500)]
    assert all(70 <= drawn.count(choice) <= 130 for choice in LATENTS)
    assert drawn != [made(stage="2").draw(number) for number in range(500)]
    assert drawn != [made(GeneratedRows(seed=5)).draw(number) for number in range(500)]


@pytest.mark.parametrize("num_latents", [(4,), (144,), LATENTS])
def test_a_forward_pass_holds_little_padding_at_any_number_of_latents(num_latents):
    assert padding(made(num_latents=num_latents), 200) < 0.03
    assert padding(made(num_latents=num_latents, group=1, rows=32, passes=1), 200) > 0.3


def test_a_step_is_of_one_modality():
    steps = made(group=64)
    mixed = 0
    for step in first(steps, 64):
        has_image = steps.mixture.shapes(step.passes.ravel()).has_image
        mixed += 0 < has_image.sum() < len(has_image)
    assert mixed <= 1


def test_steps_do_not_get_longer_or_shorter_as_a_group_goes_on():
    totals = [tokens(made(group=64), step).sum() for step in first(made(group=64), 64)]
    assert abs(np.corrcoef(totals, np.arange(64))[0, 1]) < 0.3


@pytest.mark.parametrize("passes", [8, 32])
def test_passes_that_run_side_by_side_are_of_one_length(passes):
    steps, processes = made(passes=passes, num_latents=(64,)), 8
    longest = mean = 0
    for step in first(steps, 200):
        lengths = [steps.mixture.shapes(share_of(step, rank, processes).ravel()) for rank in range(processes)]
        work = [ESTIMATE.of(each, 64).reshape(-1, 4).max(axis=1) for each in lengths]
        longest, mean = longest + np.max(work, axis=0).sum(), mean + np.mean(work, axis=0).sum()
    assert 1 - mean / longest < 0.03


@pytest.mark.parametrize("passes", [8, 32])
def test_no_process_always_has_the_longest_pass(passes):
    """With as many passes as processes the last one had the longest of every step."""
    steps, processes = made(passes=passes, num_latents=(64,)), 8
    longest, total = Counter(), np.zeros(processes)
    for step in first(steps, 800):
        lengths = {}
        for rank in range(processes):
            shapes = steps.mixture.shapes(share_of(step, rank, processes)[-1])
            lengths[rank] = ESTIMATE.of(shapes, 64).max()
            total[rank] += lengths[rank]
        longest[max(lengths, key=lambda rank: (lengths[rank], rank))] += 1
    assert max(longest.values()) < 2 * 800 / processes
    assert total.max() < 1.02 * total.min()


@pytest.mark.parametrize("weights", [None, (1.0, 1.0)])
def test_a_row_hardly_meets_itself(weights):
    """Sorting over many passes of a small source would put a row beside its own repetitions."""
    steps = made(GeneratedRows(sizes=(30_000, 500), weights=weights), passes=16)
    found = first(steps, 400)
    repeated = sum(step.passes.size - len(np.unique(steps.mixture.rows(step.passes.ravel()))) for step in found)
    assert repeated < 0.05 * 400 * 64


def test_a_mixture_smaller_than_a_step_is_repeated():
    (step,) = first(made(GeneratedRows(sizes=(10,))), 1)
    assert np.sort(step.passes.ravel()).tolist() == list(range(32))


def test_steps_of_a_mixture_are_those_of_its_rows(files):
    records = [
        files.record(number, turns=1 + number % 4, words=number % 30, image="image.png" if number % 3 else None)
        for number in range(400)
    ]
    files.llava("a.json", 0, records=records)
    mixture = open_mixture({"datasets": [{"json_path": str(files.folder / "a.json")}]}, seed=0)
    steps = made(mixture, passes=2, num_latents=(144,))
    mixed = 0
    for step in first(steps, 12):
        samples = [mixture.read(mixture.order.at(position)) for position in step.passes.ravel().tolist()]
        kinds = {0 if sample.image is None else len(sample.turns) for sample in samples}
        mixed += len(kinds) > 1
    assert mixed <= 4, "a step where two kinds meet: text alone, and images with 1 to 4 questions"


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="rows of an optimizer step must be at least 1, got 0"):
        made(rows=0)
    with pytest.raises(ValueError, match="num_latents is empty"):
        made(num_latents=())
    (step,) = first(made(), 1)
    with pytest.raises(ValueError, match="the 8 forward passes of an optimizer step cannot be shared evenly by 3"):
        share_of(step, 0, 3)
    with pytest.raises(ValueError, match="no process 2 among 2"):
        share_of(step, 2, 2)
