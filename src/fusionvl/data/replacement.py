"""Corrupt and over-long samples in training: named, counted, and replaced by others that the position alone decides.

    reader = SampleReader(mixture, decode, policy=FaultPolicy(), quarantine=folder / "quarantine.jsonl")
    ready = reader.read_or_replace(position)

Nothing is skipped unseen: each fault is a line of the quarantine file, and too many stop the run. What it takes to
use a sample (opening its image, encoding its text) is the caller's `decode`; this module knows neither.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, Literal

import numpy as np

from fusionvl.data.faults import Fault, FaultKind, Ready, try_row
from fusionvl.data.mixture import Mixture
from fusionvl.data.mixture_order import Place
from fusionvl.data.permutation import permuted
from fusionvl.data.sample import Sample
from fusionvl.run_folder import writing

logger = logging.getLogger(__name__)

_REPLACEMENTS_TRIED = 16
_FEWEST_READS = 1000  # before, a ratio says little: the limit is that of this many reads


@dataclass(frozen=True)
class FaultPolicy:
    """What to do with samples that cannot be used.

    Attributes:
        on_corrupt: replace a corrupt sample by another of the same source, or stop.
        on_over_long: drop an over-long sample, another of the same source taking its place, or stop.
        max_corrupt_ratio: stop when more than this share of the samples read is corrupt (the first thousand reads
            count as a thousand).
    """

    on_corrupt: Literal["replace", "error"] = "replace"
    on_over_long: Literal["drop", "error"] = "drop"
    max_corrupt_ratio: float = 0.01

    def __post_init__(self) -> None:
        if self.on_corrupt not in ("replace", "error") or self.on_over_long not in ("drop", "error"):
            raise ValueError(
                f"on_corrupt must be 'replace' or 'error' and on_over_long 'drop' or 'error', "
                f"got {self.on_corrupt!r} and {self.on_over_long!r}"
            )
        if not 0 <= self.max_corrupt_ratio <= 1:
            raise ValueError(f"max_corrupt_ratio must be from 0 to 1, got {self.max_corrupt_ratio}")


class SampleReader(Generic[Ready]):
    """Reads samples by position, replacing those that cannot be used.

    Counts are those of this process: with data-loader workers, each has its own. The faults of all are in the
    quarantine file.

    Args:
        mixture: the data.
        decode: makes of a sample what the caller uses; see `try_row`.
        policy: what to do with faults.
        quarantine: a JSON lines file to which faults are appended; its folder must exist.

    Attributes:
        reads: samples read or tried.
        faults: how many of them could not be used, by source and kind.
    """

    def __init__(
        self,
        mixture: Mixture,
        decode: Callable[[Sample], Ready],
        *,
        policy: FaultPolicy = FaultPolicy(),
        quarantine: Path | None = None,
    ) -> None:
        self.mixture = mixture
        self.decode = decode
        self.policy = policy
        self.quarantine = quarantine
        self.reads = 0
        self.faults: Counter[tuple[str, FaultKind]] = Counter()

    def read_or_replace(self, position: int) -> Ready:
        """Returns the decoded sample at a position, or that of its first usable replacement.

        Replacements are other rows of the same source, in an order that seed and position decide.

        Raises:
            ValueError: if the policy says so, too many samples are corrupt, no replacement can be used either, or
                the quarantine file cannot be written.
        """
        place = self.mixture.order.at(position)
        faults: list[Fault] = []
        for candidate in self._candidates(position, place):
            ready = self._try(candidate)
            if not isinstance(ready, Fault):
                self._record(position, faults, self.mixture.row(candidate))
                return ready
            faults.append(ready)
            if verdict := self._stop(ready):
                self._record(position, faults, None)
                raise ValueError(verdict)
        self._record(position, faults, None)
        raise ValueError(
            f"{faults[0].source}: neither row {faults[0].row} nor any of {len(faults) - 1} replacements can be used; "
            f"the first reason: {faults[0].reason}"
        )

    def _try(self, place: Place) -> Ready | Fault:
        self.reads += 1
        source, seed = self.mixture.parts[place.source].source, self.mixture.seed
        ready = try_row(source, self.mixture.row(place), self.decode, epoch=place.epoch, seed=seed)
        if isinstance(ready, Fault):
            self.faults[ready.source, ready.kind] += 1
        return ready

    def _candidates(self, position: int, place: Place) -> Iterator[Place]:
        """The place itself, then what may replace it."""
        yield place
        size = self.mixture.order.sizes[place.source]
        first = np.arange(min(size, _REPLACEMENTS_TRIED + 1))
        numbers = permuted(first, size, f"replace/{self.mixture.seed}/{position}").tolist()
        others = [number for number in numbers if number != place.row][:_REPLACEMENTS_TRIED]
        yield from (Place(place.source, number, place.epoch) for number in others)

    def _stop(self, fault: Fault) -> str | None:
        """Why the run ends with a fault; None if it goes on."""
        action = self.policy.on_over_long if fault.kind == "over-long" else self.policy.on_corrupt
        if action == "error":
            return f"{fault.kind} sample: {fault}"
        corrupt = sum(count for (_, kind), count in self.faults.items() if kind == "corrupt")
        if corrupt > self.policy.max_corrupt_ratio * max(self.reads, _FEWEST_READS):
            return (
                f"{corrupt} of {self.reads} samples read are corrupt, more than max_corrupt_ratio="
                f"{self.policy.max_corrupt_ratio}; the last: {fault}. `fusionvl data verify` lists all"
            )
        return None

    def _record(self, position: int, faults: list[Fault], replaced_by: int | None) -> None:
        for fault in faults:
            logger.warning("%s sample: %s; replaced by row %s", fault.kind, fault, replaced_by)
        if self.quarantine is None or not faults:
            return
        lines = [{"position": position, **asdict(fault), "replaced_by": replaced_by} for fault in faults]
        content = "".join(json.dumps(line) + "\n" for line in lines)
        with writing(self.quarantine), self.quarantine.open("a", encoding="utf-8") as file:
            file.write(content)  # one write, so that lines of several processes do not mix
