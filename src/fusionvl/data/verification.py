"""Reads a whole mixture once and reports what is in it: `fusionvl data verify MIXTURE`.

What using a sample takes (opening its image, counting its tokens) is the caller's `measure`. The report's form is in
`verification_report.py`.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from tqdm import tqdm

from fusionvl.data.faults import check_image, try_row
from fusionvl.data.mixture import Mixture
from fusionvl.data.sample import Sample
from fusionvl.data.verification_report import MixtureReport, SourceReport

Measure: TypeAlias = Callable[[Sample], int]
"""Opens everything a sample needs and returns its tokens; raises `ValueError` for a sample that cannot be used."""

_CHUNK_ROWS = 1024
_Chunk: TypeAlias = tuple[int, int]  # a source's number, the first of some rows that take part of it


def verify_mixture(mixture: Mixture, measure: Measure, *, processes: int = 1) -> MixtureReport:
    """Reads every row that takes part, once.

    Args:
        mixture: the data.
        measure: counts a sample's tokens after opening its image. Must be picklable for several processes.
        processes: that read at the same time.

    Returns:
        The report; see `MixtureReport.write`.

    Raises:
        ValueError: if `processes` is out of range.
    """
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    reports = [SourceReport(part.source.name, rows_in_file=len(part.source)) for part in mixture.parts]
    chunks = [(n, start) for n, part in enumerate(mixture.parts) for start in range(0, len(part), _CHUNK_ROWS)]
    with tqdm(total=len(mixture), unit="row", desc="Verifying", delay=2) as bar:
        for (number, _), found in zip(chunks, _read(_Work(mixture, measure), chunks, processes), strict=True):
            reports[number].add(found)
            bar.update(found.rows)
    return MixtureReport(reports)


@dataclass(frozen=True)
class _Work:
    """What every process needs to read a chunk."""

    mixture: Mixture
    measure: Measure

    def read(self, chunk: _Chunk) -> SourceReport:
        number, start = chunk
        part = self.mixture.parts[number]
        report = SourceReport(part.source.name)
        for row in part.to_rows(np.arange(start, min(start + _CHUNK_ROWS, len(part)))).tolist():
            report.count(try_row(part.source, row, self._use, epoch=0, seed=self.mixture.seed))
        return report

    def _use(self, sample: Sample) -> tuple[Sample, int]:
        check_image(sample)
        return sample, self.measure(sample)


def _read(work: _Work, chunks: list[_Chunk], processes: int) -> Iterator[SourceReport]:
    if processes == 1:
        yield from map(work.read, chunks)
        return
    # Not fork: the caller may hold threads of torch or of the tokenizer.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_set_up, initargs=(work,)) as pool:
        yield from pool.map(_read_in_worker, chunks)


_worker: dict[str, Any] = {}  # what every chunk needs, sent to a process once


def _set_up(work: _Work) -> None:
    _worker["work"] = work


def _read_in_worker(chunk: _Chunk) -> SourceReport:
    report: SourceReport = _worker["work"].read(chunk)
    return report
