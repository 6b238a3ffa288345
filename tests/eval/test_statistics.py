"""Intervals that hold what they promise, and tests that agree with hand calculation."""

import math

import numpy as np
import pytest

from fusionvl.eval.statistics import interval_of_mean, mcnemar


def test_width_is_that_of_a_mean_when_every_question_has_an_image_of_its_own():
    scores = np.random.default_rng(1).random(400) < 0.3
    low, high = interval_of_mean(scores, [str(number) for number in range(400)])
    assert high - low == pytest.approx(100 * 2 * 1.96 * math.sqrt(scores.mean() * (1 - scores.mean()) / 400), rel=0.12)
    assert low < 100 * scores.mean() < high


def test_questions_of_one_image_do_not_count_as_many():
    """Ten equal answers about each of 40 images are 40 observations, and no image id means each is its own."""
    scores = np.repeat(np.random.default_rng(1).random(40) < 0.5, 10)
    grouped = interval_of_mean(scores, [str(number // 10) for number in range(400)])
    alone = interval_of_mean(scores, [""] * 400)
    assert np.diff(grouped)[0] == pytest.approx(math.sqrt(10) * np.diff(alone)[0], rel=0.15)


def test_images_with_more_questions_weigh_more():
    """The centre is the mean over questions, not over images."""
    scores, images = [1.0] * 90 + [0.0] * 10, [str(number // 9) for number in range(90)] + ["many"] * 10
    low, high = interval_of_mean(scores, images)
    assert low < 90 < high <= 100


def test_the_same_scores_give_the_same_interval():
    scores, images = [number % 3 / 2 for number in range(50)], [str(number) for number in range(50)]
    assert interval_of_mean(scores, images) == interval_of_mean(scores, images)


@pytest.mark.parametrize(("scores", "images"), [([1, 0], "aa"), ([1, 1], "ab"), ([0, 1, 0, 1], "aabb")])
def test_draws_that_do_not_vary_tell_nothing_of_others(scores, images):
    assert interval_of_mean(scores, list(images)) is None


def test_paired_difference_is_narrower_than_two_scores_apart():
    hard, images = np.random.default_rng(0).random(300), [str(number) for number in range(300)]
    first, second = (hard < 0.6).astype(float), (hard < 0.65).astype(float)
    low, high = interval_of_mean(second - first, images)
    assert 0 < low < 100 * (second - first).mean() < high
    assert high - low < np.diff(interval_of_mean(first, images))[0] / 2


def test_mcnemar():
    assert mcnemar(0, 0) == mcnemar(5, 5) == 1.0
    assert mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert mcnemar(2, 8) == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert mcnemar(2, 8) == mcnemar(8, 2)
    assert 0 < mcnemar(4000, 4500) < 1e-6
