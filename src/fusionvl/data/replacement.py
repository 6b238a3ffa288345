"""Corrupt and over-long samples in training: named, counted, and replaced by others that the position alone decides.

    reader = SampleReader(mixture, decode, policy=FaultPolicy(), quarantine=folder / "quarantine.jsonl")
    ready = reader.read_or_replace(position)

Nothing is skipped unseen: each fault is a line of the quarantine file, and too many stop the run. What it takes to
use a sample (opening its image, encoding its text) is the caller's `decode`; this module knows neither.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, Literal, TypeAlias, TypeVar

import numpy as np

from fusionvl.data.mixture import Mixture
from fusionvl.data.mixture_order import Place
from fusionvl.data.permutation import permuted
from fusionvl.data.sample import OverLongError, Sample

logger = logging.getLogger(__name__)
Ready = TypeVar("Ready")
FaultKind: TypeAlias = Literal["corrupt", "over-long"]

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


@dataclass(frozen=True)
class Fault:
    """One sample that could not be used: a line of the quarantine file.

    Attributes:
        position: of the run, whose sample was wanted.
        source: the data set.
        row: of the source.
        id: the sample's id, or None if the row could not be read so far.
        epoch: the pass over the source.
        kind: corrupt or over-long.
        reason: what was wrong.
        replaced_by: the source's row that was taken instead; None if none could be.
    """

    position: int
    source: str
    row: int
    id: str | None
    epoch: int
    kind: FaultKind
    reason: str
    replaced_by: int | None = None


class SampleReader(Generic[Ready]):
    """Reads samples by position, replacing those that cannot be used.

    Counts are those of this process: with data-loader workers, each has its own. The counts of all are in the
    quarantine file, see `quarantine_counts`.

    Args:
        mixture: the data.
        decode: makes of a sample what the caller uses; raises `OverLongError` for one that does not fit, and another
            `ValueError` for one that is corrupt.
        policy: what to do with those.
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
            ValueError: if the policy says so, too many samples are corrupt, or no replacement can be used either.
        """
        place = self.mixture.order.at(position)
        ready = self._try(position, place)
        if not isinstance(ready, Fault):
            return ready
        faults = [ready]
        for candidate in self._replacements(position, place):
            self._stop_if_told(faults)
            ready = self._try(position, candidate)
            if not isinstance(ready, Fault):
                self._record(faults, self.mixture.row(candidate))
                return ready
            faults.append(ready)
        self._record(faults, None)
        raise ValueError(
            f"{faults[0].source}: neither row {faults[0].row} nor any of {len(faults) - 1} replacements can be used; "
            f"the first reason: {faults[0].reason}"
        )

    def _try(self, position: int, place: Place) -> Ready | Fault:
        self.reads += 1
        sample = None
        try:
            sample = self.mixture.read(place)
            return self.decode(sample)
        except ValueError as error:
            kind: FaultKind = "over-long" if isinstance(error, OverLongError) else "corrupt"
            name = self.mixture.parts[place.source].source.name
            self.faults[name, kind] += 1
            found = None if sample is None else sample.id
            return Fault(position, name, self.mixture.row(place), found, place.epoch, kind, str(error))

    def _replacements(self, position: int, place: Place) -> list[Place]:
        size = self.mixture.order.sizes[place.source]
        first = np.arange(min(size, _REPLACEMENTS_TRIED + 1))
        numbers = permuted(first, size, f"replace/{self.mixture.seed}/{position}").tolist()
        others = [number for number in numbers if number != place.row][:_REPLACEMENTS_TRIED]
        return [Place(place.source, number, place.epoch) for number in others]

    def _stop_if_told(self, faults: list[Fault]) -> None:
        fault = faults[-1]
        named = f"{fault.source}, row {fault.row}" + (f" (id {fault.id!r})" if fault.id is not None else "")
        action = self.policy.on_over_long if fault.kind == "over-long" else self.policy.on_corrupt
        if action == "error":
            self._record(faults, None)
            raise ValueError(f"{fault.kind} sample: {named}: {fault.reason}")
        corrupt = sum(count for (_, kind), count in self.faults.items() if kind == "corrupt")
        if corrupt > self.policy.max_corrupt_ratio * max(self.reads, _FEWEST_READS):
            self._record(faults, None)
            raise ValueError(
                f"{corrupt} of {self.reads} samples read are corrupt, more than max_corrupt_ratio="
                f"{self.policy.max_corrupt_ratio}; the last: {named}: {fault.reason}. `fusionvl data verify` lists all"
            )

    def _record(self, faults: list[Fault], replaced_by: int | None) -> None:
        for fault in faults:
            logger.warning(
                "%s, row %d (id %s) is %s: %s; replaced by row %s",
                fault.source,
                fault.row,
                fault.id,
                fault.kind,
                fault.reason,
                replaced_by,
            )
        if self.quarantine is None:
            return
        lines = (json.dumps(asdict(fault) | {"replaced_by": replaced_by}) + "\n" for fault in faults)
        with self.quarantine.open("a", encoding="utf-8") as file:
            file.write("".join(lines))  # one write, so that lines of several processes do not mix


def quarantine_counts(quarantine: Path) -> Counter[tuple[str, str]]:
    """Counts the faults in a quarantine file, by source and kind; a repetition after a resumption counts once.

    A file that is not there has none.

    Raises:
        ValueError: if the file holds something else.
    """
    if not quarantine.exists():
        return Counter()
    try:
        faults = [json.loads(line) for line in quarantine.read_text(encoding="utf-8").splitlines()]
        distinct = {(fault["position"], fault["source"], fault["row"], fault["kind"]) for fault in faults}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{quarantine}: not a quarantine file ({error})") from error
    return Counter((source, kind) for _, source, _, kind in distinct)
