"""The results of an ablation: one line a run in `results.jsonl`, and the statistics over seeds.

Knows numbers; knows no models.
"""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# 97.5 % quantile of Student's t by degrees of freedom; beyond the last the normal's is within a few per cent.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_NORMAL = 1.960


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        variant: Its name.
        seed: Of weights and order.
        fingerprint: Of the recipe's part that the result depends on, see `recipe.fingerprint`.
        data: Of the contents of its data, see `data_digest`.
        parameters: Parameters in use.
        image_tokens: Of a picture.
        latent_tokens: Of a question.
        prompt_tokens: Mean of all questions, image and latent tokens among them.
        correct_by_kind: For each kind of question, [correct, asked].
        loss: Last logged next-token loss of the training.
        seconds_per_step: Of the training; None when it went on after an interruption.
        seconds_per_answer: Mean of all questions.
        commit: Of the checkout, None outside one.
    """

    variant: str
    seed: int
    fingerprint: str
    data: str
    parameters: int
    image_tokens: int
    latent_tokens: int
    prompt_tokens: float
    correct_by_kind: dict[str, list[int]]
    loss: float
    seconds_per_step: float | None
    seconds_per_answer: float
    commit: str | None

    @property
    def accuracy(self) -> float:
        """Share of all questions answered exactly."""
        return sum(self.correct_by_kind[kind][0] for kind in self.correct_by_kind) / sum(
            self.correct_by_kind[kind][1] for kind in self.correct_by_kind
        )

    def accuracy_of(self, kind: str) -> float:
        """Share of the questions of one kind."""
        correct, asked = self.correct_by_kind[kind]
        return correct / asked


@dataclass(frozen=True)
class Difference:
    """A paired difference: each seed's run against the other variant's run with that seed.

    Attributes:
        mean: Over the seeds that both have.
        half_width: Of the 95 % confidence interval by Student's t; None with fewer than two seeds.
        seeds: How many.
    """

    mean: float
    half_width: float | None
    seeds: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.half_width is not None and abs(self.mean) > self.half_width


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; None for the latter with fewer than two values."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def paired_difference(ours: dict[int, float], theirs: dict[int, float]) -> Difference | None:
    """Compare two variants over the seeds that both have; None when there is none.

    Args:
        ours: Seed -> value.
        theirs: Seed -> value of what is subtracted.
    """
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return None
    mean, deviation = mean_and_deviation([ours[seed] - theirs[seed] for seed in shared])
    if deviation is None:
        return Difference(mean, None, 1)
    freedom = len(shared) - 1
    quantile = _T[freedom - 1] if freedom <= len(_T) else _NORMAL
    return Difference(mean, quantile * deviation / math.sqrt(len(shared)), len(shared))


def append_result(path: Path, result: Result) -> None:
    """Write one line, whole: a line that a kill cut short is ended first, so that it spoils no other."""
    with path.open("a+b") as lines:
        if lines.tell():
            lines.seek(-1, 2)
            if lines.read(1) != b"\n":
                lines.write(b"\n")
        lines.write(json.dumps(asdict(result)).encode() + b"\n")


def read_results(path: Path) -> list[Result]:
    """All whole results; none when there is no file.

    Raises:
        ValueError: When a line that is whole is no result; with its number.
    """
    if not path.exists():
        return []
    results = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut short by a kill; its run is done again
        try:
            results.append(Result(**values))
        except TypeError as error:
            raise ValueError(f"{path}:{number} is no result of an ablation: {error}") from error
    return results
