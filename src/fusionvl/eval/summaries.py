"""From samples to the numbers that benchmarks report: percent, or MME's sums.

A sample whose score is None (its judge failed) is left out of every number here. Knows no benchmark's files.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from fusionvl.eval.task import Sample

Summary: TypeAlias = dict[str, float]


def scored(samples: Iterable[Sample]) -> list[Sample]:
    """The samples that have a score.

    Raises:
        ValueError: When none has.
    """
    kept = [sample for sample in samples if sample.score is not None]
    if not kept:
        raise ValueError("no sample has a score: there is nothing to summarise")
    return kept


def percent(values: Iterable[float | bool | None]) -> float:
    """The mean, times 100; the values are from 0 to 1."""
    kept = [float(value) for value in values if value is not None]
    return 100 * sum(kept) / len(kept)


def groups(samples: Iterable[Sample], key: Callable[[Sample], Any]) -> dict[Any, list[Sample]]:
    """Samples by a key, in the order of first appearance."""
    found: dict[Any, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[key(sample)].append(sample)
    return dict(found)


def mean_score(*details: str, metric: str = "accuracy") -> Callable[[Sequence[Sample]], Summary]:
    """A summary: the mean score of all samples, and for each value of some details, as `accuracy/VALUE`."""

    def summarise(samples: Sequence[Sample]) -> Summary:
        kept = scored(samples)
        summary = {metric: percent(sample.score for sample in kept)}
        for detail in details:
            by_value = groups(kept, lambda sample: sample.details[detail])  # noqa: B023 - used at once
            summary |= {
                f"{metric}/{value}": percent(sample.score for sample in own)
                for value, own in sorted(by_value.items(), key=lambda item: str(item[0]))
            }
        return summary

    return summarise


def all_right(samples: Sequence[Sample]) -> dict[str, bool]:
    """For each group of samples that only count together (`details["group"]`): whether all have full score."""
    by_group = groups(samples, lambda sample: sample.details["group"])
    return {name: all(sample.score == 1 for sample in own) for name, own in by_group.items()}


def yes_no_counts(samples: Sequence[Sample]) -> Summary:
    """POPE's numbers, yes being the class that is looked for.

    An answer that is neither is wrong: on a yes it is missed (lowers recall), on a no it is no false alarm. The yes
    ratio is the share of yes among all answers.
    """
    yes = [sample for sample in samples if sample.parsed == "yes"]
    wanted = sum(sample.reference == "yes" for sample in samples)
    hits = sum(sample.reference == "yes" for sample in yes)
    precision = hits / len(yes) if yes else 0.0
    recall = hits / wanted if wanted else 0.0
    return {
        "accuracy": percent(sample.score for sample in samples),
        "precision": 100 * precision,
        "recall": 100 * recall,
        "f1": 100 * 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "yes_ratio": 100 * len(yes) / len(samples),
    }


def under(prefix: str, summary: Mapping[str, float]) -> Summary:
    """The same numbers as those of a part: `f1` of `random` is `f1/random`."""
    return {f"{metric}/{prefix}": value for metric, value in summary.items()}
