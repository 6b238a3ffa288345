"""The results of an ablation: one line a run in `results.jsonl`, and the statistics over seeds.

Knows numbers; knows no models.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fusionvl.data.extras import import_extra
from fusionvl.run_folder import RowFile, read_rows


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        variant: Its name.
        seed: Of weights and order.
        settings: Fingerprint of the training and the questions.
        data: Fingerprint of what the data of both hold.
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
    settings: str
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

    Raises:
        ModuleNotFoundError: When scipy is not installed, with how to install it.
    """
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return None
    mean, deviation = mean_and_deviation([ours[seed] - theirs[seed] for seed in shared])
    if deviation is None:
        return Difference(mean, None, 1)
    student = import_extra("scipy.stats", extra="eval", needed_for="The table of an ablation").t
    return Difference(mean, student.ppf(0.975, len(shared) - 1) * deviation / math.sqrt(len(shared)), len(shared))


def append_result(path: Path, result: Result) -> None:
    """Write one line, whole.

    Raises:
        ValueError: When another process writes results there.
        CannotWriteError: When the disk is full.
    """
    with RowFile(path) as results:
        results.append(asdict(result))


def read_results(path: Path) -> list[Result]:
    """All whole results; none when there is no file.

    Raises:
        ValueError: When a line is no result; with its number.
    """
    return list(read_rows(path, lambda values: Result(**values)))
