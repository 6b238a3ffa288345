"""How sure a score is, and whether two differ: bootstrap by image, McNemar's exact test.

Questions about one image are not independent, so images are drawn, each with all its questions. Seeded: the same
samples give the same interval. Knows samples and tasks; knows no files.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fusionvl.eval.task import Sample, Task

RESAMPLES = 1000
_LEVELS = (2.5, 97.5)
_SEED = 0

Interval = tuple[float, float]


def bootstrap_intervals(
    task: Task, samples: Sequence[Sample], progress: Callable[[Sequence[int]], Sequence[int]] = lambda draws: draws
) -> dict[str, Interval]:
    """95 % bootstrap intervals of a task's metrics, whatever they are made of.

    Args:
        task: Summarises each draw.
        samples: All that have a score.
        progress: Wraps the draws, to show how far they are.

    Returns:
        Lower and upper bounds by metric. A metric that does not vary (there is one image, or all answers are right)
        has none, as its draws tell nothing about other questions; nor has one that some draws lack.
    """
    images = _clusters(samples)
    generator = np.random.default_rng(_SEED)
    copies: dict[tuple[int, int], list[Sample]] = {}
    summaries = []
    for _ in progress(range(RESAMPLES)):
        counts = np.bincount(generator.integers(len(images), size=len(images)), minlength=len(images))
        drawn: list[Sample] = []
        for number in np.flatnonzero(counts).tolist():
            for copy in range(int(counts[number])):
                if (number, copy) not in copies:
                    copies[number, copy] = [_copy(sample, copy) for sample in images[number]]
                drawn += copies[number, copy]
        summaries.append(task.summarise(drawn))
    everywhere = [name for name in summaries[0] if all(name in summary for summary in summaries)]
    intervals = {name: _interval([summary[name] for summary in summaries]) for name in everywhere}
    return {name: interval for name, interval in intervals.items() if interval is not None}


def paired_difference(first: Mapping[str, Sample], second: Mapping[str, Sample]) -> tuple[float, Interval | None]:
    """Mean score of the second minus that of the first, in percent, with its 95 % bootstrap interval.

    The interval is None when the draws do not vary.

    Args:
        first: Samples by id, all with a score.
        second: The same ids.
    """
    images = _clusters(list(first.values()))
    differences = [[second[sample.id].score - sample.score for sample in image] for image in images]  # type: ignore[operator]
    sums = np.array([math.fsum(image) for image in differences])
    sizes = np.array([len(image) for image in differences])
    difference = 100 * sums.sum() / sizes.sum()
    if len(images) < 2:
        return float(difference), None
    generator = np.random.default_rng(_SEED)
    values = []
    for _ in range(RESAMPLES):
        drawn = generator.integers(len(images), size=len(images))
        values.append(100 * sums[drawn].sum() / sizes[drawn].sum())
    return float(difference), _interval(values)


def mcnemar(first_only: int, second_only: int) -> float:
    """Exact two-sided p value of McNemar's test on the questions that only one of two got right.

    Args:
        first_only: Questions only the first answered rightly.
        second_only: Questions only the second answered rightly.
    """
    total = first_only + second_only
    term = tail = 1  # binomial coefficients as whole numbers: no rounding, however many questions
    for k in range(1, min(first_only, second_only) + 1):
        term = term * (total - k + 1) // k
        tail += term
    return float(min(1.0, 2 * tail / 2**total)) if total else 1.0


def _interval(values: Sequence[float]) -> Interval | None:
    if min(values) == max(values):
        return None
    low, high = np.percentile(values, _LEVELS)
    return float(low), float(high)


def _clusters(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Samples that must be drawn together: of one image, or of one group that only counts as a whole.

    A group (`details["group"]`) may hold several images, as MMVP's pairs do; then all of these are one cluster.
    """
    leader: dict[tuple[str, str], tuple[str, str]] = {}

    def find(key: tuple[str, str]) -> tuple[str, str]:
        while (above := leader.setdefault(key, key)) != key:
            key = above
        return key

    for sample in samples:
        if "group" in sample.details:
            leader[find(("group", str(sample.details["group"])))] = find(_own_key(sample))
    clusters: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        clusters.setdefault(find(_own_key(sample)), []).append(sample)
    return list(clusters.values())


def _own_key(sample: Sample) -> tuple[str, str]:
    return ("image", sample.image_id) if sample.image_id else ("sample", sample.id)


def _copy(sample: Sample, number: int) -> Sample:
    """The same answer about a picture that counts as another one: summaries that group samples stay right."""
    if number == 0:
        return sample
    details = dict(sample.details)
    if "group" in details:
        details["group"] = f"{details['group']}~{number}"
    image_id = f"{sample.image_id or sample.id}~{number}"
    return replace(sample, id=f"{sample.id}~{number}", image_id=image_id, details=details)
