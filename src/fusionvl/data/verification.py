"""Reads a whole mixture once and reports what is in it: `fusionvl data verify MIXTURE`.

What using a sample takes (opening its image, counting its tokens) is the caller's `measure`. The report's form is in
`verification_report.py`.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from tqdm import tqdm

from fusionvl.data.mixture import Mixture
from fusionvl.data.replacement import FaultKind
from fusionvl.data.sample import OverLongError, Sample
from fusionvl.data.verification_report import FaultyRow, MixtureReport, SourceReport

Measure: TypeAlias = Callable[[Sample], int]
"""Opens everything a sample needs and returns its tokens; raises `ValueError` for a sample that cannot be used."""

_CHUNK_ROWS = 1024


@dataclass(frozen=True)
class _Chunk:
    part: int
    start: int
    stop: int


def verify_mixture(
    mixture: Mixture, *, measure: Measure | None = None, processes: int = 1, listed: int = 20
) -> MixtureReport:
    """Reads every row that takes part, once.

    Args:
        mixture: the data.
        measure: counts a sample's tokens after opening its image; without it lengths are in characters, and of an
            image only its presence is looked at. Must be picklable for several processes.
        processes: that read at the same time.
        listed: most faulty rows of each source that the report names; all are counted.

    Returns:
        The report; see `MixtureReport.write`.

    Raises:
        ValueError: if `processes` or `listed` is out of range.
    """
    if processes < 1 or listed < 0:
        raise ValueError(f"processes must be at least 1 and listed at least 0, got {processes} and {listed}")
    reports = [
        SourceReport(name=part.source.name, rows_in_file=len(part.source), listed=listed) for part in mixture.parts
    ]
    chunks = [
        _Chunk(number, start, min(start + _CHUNK_ROWS, len(part.selection)))
        for number, part in enumerate(mixture.parts)
        for start in range(0, len(part.selection), _CHUNK_ROWS)
    ]
    with tqdm(total=len(mixture), unit="row", desc="Verifying", delay=2) as bar:
        for chunk, found in _read_chunks(mixture, chunks, measure, processes, listed):
            reports[chunk.part].add(found)
            bar.update(chunk.stop - chunk.start)
    return MixtureReport(sources=reports, unit="characters" if measure is None else "tokens")


def _read_chunks(
    mixture: Mixture, chunks: list[_Chunk], measure: Measure | None, processes: int, listed: int
) -> Iterator[tuple[_Chunk, SourceReport]]:
    if processes == 1:
        for chunk in chunks:
            yield chunk, _read_chunk(mixture, chunk, measure, listed)
        return
    # Not fork: the caller may hold threads of torch or of the tokenizer.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=_set_up, initargs=(mixture, measure, listed)
    ) as pool:
        yield from zip(chunks, pool.map(_read_in_worker, chunks), strict=True)


_worker: dict[str, Any] = {}  # what every chunk needs, sent to a worker process once


def _set_up(mixture: Mixture, measure: Measure | None, listed: int) -> None:
    _worker.update(mixture=mixture, measure=measure, listed=listed)


def _read_in_worker(chunk: _Chunk) -> SourceReport:
    return _read_chunk(_worker["mixture"], chunk, _worker["measure"], _worker["listed"])


def _read_chunk(mixture: Mixture, chunk: _Chunk, measure: Measure | None, listed: int) -> SourceReport:
    part = mixture.parts[chunk.part]
    report = SourceReport(name=part.source.name, rows_in_file=len(part.source), listed=listed)
    for row in part.selection.to_rows(np.arange(chunk.start, chunk.stop)).tolist():
        sample = None
        try:
            sample = part.source.read(row, epoch=0, seed=mixture.seed)
            _check_image(sample)
            length = None if measure is None else measure(sample)
        except ValueError as error:
            sample_id = None if sample is None else sample.id
            kind: FaultKind = "over-long" if isinstance(error, OverLongError) else "corrupt"
            report.count_fault(FaultyRow(row=row, id=sample_id, kind=kind, reason=str(error)))
        else:
            report.count(sample, length)
    return report


def _check_image(sample: Sample) -> None:
    if isinstance(sample.image, Path) and not sample.image.is_file():
        raise ValueError(f"there is no image {sample.image}")
