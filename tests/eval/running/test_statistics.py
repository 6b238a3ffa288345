"""Intervals that hold what they promise, and tests that agree with hand calculation."""

import math
from dataclasses import replace

import numpy as np
import pytest
from stand_ins import TASK

from fusionvl.eval.statistics import bootstrap_intervals, mcnemar, paired_difference
from fusionvl.eval.task import Sample


def sample(id, score, image_id="", **details):
    return Sample(id, "?", "!", "!", score, "", "!", details, "stop", image_id)


def interval(task, samples):
    return bootstrap_intervals(task, samples)[task.headline]


def test_width_is_that_of_a_mean_when_every_question_has_an_image_of_its_own():
    scores = np.random.default_rng(1).random(400) < 0.3
    samples = [sample(f"{n}", float(right), f"{n}") for n, right in enumerate(scores)]
    low, high = interval(TASK, samples)
    expected = 100 * 2 * 1.96 * math.sqrt(scores.mean() * (1 - scores.mean()) / 400)
    assert high - low == pytest.approx(expected, rel=0.12)
    assert low < 100 * scores.mean() < high


def test_questions_of_one_image_do_not_count_as_many():
    """Ten equal answers about each of 40 images are 40 observations, and no image id means each is its own."""
    scores = np.random.default_rng(1).random(40) < 0.5
    grouped = [sample(f"{n}-{k}", float(right), f"{n}") for n, right in enumerate(scores) for k in range(10)]
    alone = [replace(one, image_id="") for one in grouped]
    width = np.diff(interval(TASK, grouped))[0]
    assert width == pytest.approx(math.sqrt(10) * np.diff(interval(TASK, alone))[0], rel=0.15)


def test_the_same_samples_give_the_same_interval():
    samples = [sample(f"{n}", n % 3 / 2, f"{n}") for n in range(50)]
    assert interval(TASK, samples) == interval(TASK, samples)


def test_draws_that_do_not_vary_tell_nothing_of_others():
    assert bootstrap_intervals(TASK, [sample("1", 1.0, "a"), sample("2", 0.0, "a")]) == {}
    assert bootstrap_intervals(TASK, [sample("1", 1.0, "a"), sample("2", 1.0, "b")]) == {}


def test_a_metric_that_some_draws_lack_has_no_interval():
    def by_image(samples):
        return {"accuracy": 100 * np.mean([s.score for s in samples]), **{s.image_id: s.score for s in samples}}

    samples = [sample(f"{n}", n % 2, f"{n}") for n in range(20)]
    assert list(bootstrap_intervals(replace(TASK, summarise=by_image), samples)) == ["accuracy"]


def test_groups_are_drawn_whole_and_a_group_drawn_twice_counts_as_two():
    seen = []

    def pairs_right(samples):
        groups = {}
        for one in samples:
            groups.setdefault(one.details["group"], []).append(one)
        assert {len(own) for own in groups.values()} == {2}
        assert len({one.id for one in samples}) == len(samples)
        seen.append(len(groups))
        return {"accuracy": 100 * np.mean([all(one.score for one in own) for own in groups.values()])}

    samples = [sample(f"{n}", float(n % 3 > 0), f"image {n}", group=n // 2) for n in range(60)]
    low, high = interval(replace(TASK, summarise=pairs_right), samples)
    assert set(seen) == {30}
    assert low < 100 / 3 < high


def test_paired_difference_is_narrower_than_two_scores_apart():
    generator = np.random.default_rng(0)
    hard = generator.random(300)
    first = {f"{n}": sample(f"{n}", float(level < 0.6), f"{n}") for n, level in enumerate(hard)}
    second = {f"{n}": sample(f"{n}", float(level < 0.65), f"{n}") for n, level in enumerate(hard)}
    difference, (low, high) = paired_difference(first, second)
    assert difference == pytest.approx(100 * ((hard < 0.65).mean() - (hard < 0.6).mean()))
    assert 0 < low < difference < high
    assert high - low < np.diff(interval(TASK, list(first.values())))[0] / 2
    assert paired_difference(first, first) == (0.0, None)


def test_mcnemar():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert mcnemar(2, 8) == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert mcnemar(2, 8) == mcnemar(8, 2)
    assert 0 < mcnemar(4000, 4500) < 1e-6
