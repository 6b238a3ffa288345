"""A mixture: several sources read as one, in a seeded order, at any position.

    mixture = open_mixture(Path("stage2.yaml"), seed=0)
    sample = mixture.read(mixture.order.at(1_000_000))

Opens what `mixture_file.py` describes and refuses data that cannot work before a run begins. Single corrupt rows are
not its matter, see `replacement.py`; neither are pixels, tokens or batches.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionvl.data.csv_file import CsvFile
from fusionvl.data.easy_vqa import EasyVqaSource
from fusionvl.data.faults import Fault, check_image, try_row
from fusionvl.data.file_source import FileSource
from fusionvl.data.json_file import JsonFile
from fusionvl.data.mixture_file import MixtureEntry, read_mixture_file
from fusionvl.data.mixture_order import MixtureOrder, Place
from fusionvl.data.parquet_file import ParquetFile
from fusionvl.data.permutation import permuted
from fusionvl.data.record_file import RecordFile
from fusionvl.data.sample import Sample
from fusionvl.data.sampling_strategy import Strategy
from fusionvl.data.source import Shapes, Source, gather_shapes
from fusionvl.data.tar_file import TarFile
from fusionvl.run_folder import fingerprint

_PROBED_ROWS = 8


@dataclass(frozen=True)
class MixturePart:
    """What takes part of one source; its rows are numbered anew.

    Attributes:
        source: the data.
        strategy: which of its rows take part.
        weight: its share against the other weights, or None for natural proportions.
        label: decides a random choice of rows.
    """

    source: Source
    strategy: Strategy
    weight: float | None
    label: str

    def __len__(self) -> int:
        return self.strategy.count(len(self.source))

    def to_rows(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the source's own rows for numbers below the length. Computed when asked for, never stored."""
        if self.strategy.which == "end":
            return numbers + (len(self.source) - len(self))
        if self.strategy.which == "random":
            return permuted(numbers, len(self.source), self.label)
        return numbers


@dataclass(frozen=True)
class Mixture:
    """Sources with what is taken of each.

    Attributes:
        parts: the sources, in the mixture file's order.
        seed: the run's: decides random selections, the order and what sources draw.
    """

    parts: tuple[MixturePart, ...]
    seed: int

    def __len__(self) -> int:
        """Rows that take part."""
        return sum(map(len, self.parts))

    @functools.cached_property
    def order(self) -> MixtureOrder:
        """Position -> source, number among the rows that take part, pass."""
        weights = tuple(part.weight for part in self.parts if part.weight is not None)
        return MixtureOrder(tuple(map(len, self.parts)), self.seed, weights or None)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Tells whether two mixtures give the same samples in the same order.

        Made of the seed and, for each source, name, contents, strategy and weight. Images in files of their own do
        not count.
        """
        facts = [(part.source.name, part.source.fingerprint, vars(part.strategy), part.weight) for part in self.parts]
        return fingerprint(self.seed, facts)

    def read(self, place: Place) -> Sample:
        """Reads the sample at a place of the order.

        Raises:
            ValueError: if the row is corrupt; names file and row.
        """
        part = self.parts[place.source]
        return part.source.read(self.row(place), epoch=place.epoch, seed=self.seed)

    def row(self, place: Place) -> int:
        """Returns the source's own row at a place of the order."""
        return int(self.parts[place.source].to_rows(np.array([place.row]))[0])

    def shapes(self, positions: NDArray[np.int64]) -> Shapes:
        """Returns what the samples at positions are like, from the indexes alone."""
        places = self.order.places(positions)

        def of_part(number: int, own: NDArray[np.bool_]) -> Shapes:
            part = self.parts[number]
            return part.source.shapes(part.to_rows(places.row[own]))

        return gather_shapes(places.source, of_part)


def open_mixture(
    description: Path | Mapping[str, Any],
    *,
    seed: int,
    image_folder: Path | None = None,
    index_folder: Path | None = None,
) -> Mixture:
    """Opens a mixture; builds the index of files that have none.

    Args:
        description: a mixture file or its contents; see `read_mixture_file`.
        seed: the run's seed.
        image_folder: for CSV and JSON files whose entry names none; by default the file's own folder.
        index_folder: where indexes are kept; see `open_index`.

    Raises:
        ValueError: if the mixture file is faulty, a file or folder is missing or unreadable, a source has no rows, or
            none of a few rows spread over a source can be used (as with a wrong image folder).
        ModuleNotFoundError: if a package for a kind of file is not installed.
    """
    entries = read_mixture_file(description, image_folder=image_folder)
    return Mixture(tuple(_part(entry, seed, index_folder) for entry in entries), seed)


def _part(entry: MixtureEntry, seed: int, index_folder: Path | None) -> MixturePart:
    try:
        if entry.kind == "easy-vqa":
            source: Source = EasyVqaSource(name=entry.name, **entry.options)
        else:
            files = [_file(entry, path) for path in entry.files]
            source = FileSource(entry.name, files, index_folder=index_folder)
        part = MixturePart(source, entry.strategy, entry.weight, f"select/{seed}/{entry.name}")
        if not len(part):
            raise ValueError(f"{entry.name}: holds no rows; take the entry out")
        _probe(part, seed)
    except ValueError as error:
        raise ValueError(f"{entry.where}: {error}") from error
    return part


def _file(entry: MixtureEntry, path: Path) -> RecordFile:
    if entry.kind == "parquet":
        return ParquetFile(path)
    if entry.kind == "tar":
        return TarFile(path)
    if entry.kind == "csv":
        return CsvFile(path, image_folder=entry.image_folder)
    return JsonFile(path, lines=entry.kind == "jsonl", image_folder=entry.image_folder)


def _probe(part: MixturePart, seed: int) -> None:
    """Reads a few rows; only when all are unusable is the source itself wrong."""
    numbers = np.unique(np.linspace(0, len(part) - 1, _PROBED_ROWS).astype(np.int64))
    tried = [try_row(part.source, row, check_image, epoch=0, seed=seed) for row in part.to_rows(numbers).tolist()]
    faults = [found for found in tried if isinstance(found, Fault)]
    if len(faults) == len(tried):
        raise ValueError(f"none of {len(faults)} rows looked at can be used; the first: {faults[0]}")
