"""How sure a mean score is, and whether two models differ: bootstrap by image, McNemar's exact test; by scipy.

Questions about one image are not independent, so images are drawn, each with all its questions. Seeded: the same
scores give the same interval. Knows numbers; knows no tasks and no files.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusionvl.data.extras import import_extra

RESAMPLES = 1000
Interval = tuple[float, float]


def interval_of_mean(scores: Sequence[float], images: Sequence[str]) -> Interval | None:
    """95 % bootstrap interval of the mean, in percent.

    Args:
        scores: Of questions, or differences of two models' scores.
        images: For each, which image it is about; an empty text is an image of its own.

    Returns:
        None where all draws are alike, as with one image or when every answer is right: such draws tell nothing of
        other questions.
    """
    names = [image or f"question {number}" for number, image in enumerate(images)]
    of_image = np.unique(names, return_inverse=True)[1]
    sums, sizes = np.bincount(of_image, weights=scores), np.bincount(of_image)
    if len(sums) < 2 or np.ptp(sums / sizes) == 0:
        return None
    low, high = (
        _stats()
        .bootstrap(
            (sums, sizes),
            lambda total, count, axis: 100 * total.sum(axis) / count.sum(axis),
            paired=True,
            n_resamples=RESAMPLES,
            batch=100,
            method="percentile",
            rng=0,
        )
        .confidence_interval
    )
    return float(low), float(high)


def mcnemar(first_only: int, second_only: int) -> float:
    """Exact two-sided p value of McNemar's test on the questions that only one of two got right.

    Args:
        first_only: Questions only the first answered rightly.
        second_only: Questions only the second answered rightly.
    """
    total = first_only + second_only
    return float(_stats().binomtest(first_only, total).pvalue) if total else 1.0


def _stats() -> Any:
    return import_extra("scipy.stats", extra="eval", needed_for="A confidence interval or test of scores")
