"""A mixture: several sources read as one, in a seeded order, at any position.

    mixture = open_mixture(Path("stage2.yaml"), seed=0)
    sample = mixture.read(mixture.order.at(1_000_000))

Opens what `mixture_file.py` describes and refuses data that cannot work before a run begins. Single corrupt rows are
not its matter, see `replacement.py`; neither are pixels, tokens or batches.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionvl.data.easy_vqa_source import EasyVqaSource
from fusionvl.data.joined_source import JoinedSource
from fusionvl.data.llava_source import LlavaSource
from fusionvl.data.mixture_file import MixtureEntry, read_mixture_file
from fusionvl.data.mixture_order import MixtureOrder, Place, Places
from fusionvl.data.parquet_source import ParquetSource
from fusionvl.data.sample import Sample
from fusionvl.data.selection import Selection
from fusionvl.data.source import Source
from fusionvl.data.tar_source import TarSource

_PROBED_ROWS = 8


@dataclass(frozen=True)
class MixturePart:
    """One source of a mixture.

    Attributes:
        source: the data.
        selection: which of its rows take part.
        weight: its share against the other weights, or None for natural proportions.
    """

    source: Source
    selection: Selection
    weight: float | None


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
        return sum(len(part.selection) for part in self.parts)

    @functools.cached_property
    def order(self) -> MixtureOrder:
        """Position -> source, number within the selection, pass."""
        weights = tuple(part.weight for part in self.parts if part.weight is not None)
        return MixtureOrder(tuple(len(part.selection) for part in self.parts), self.seed, weights or None)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Tells whether two mixtures give the same order: names, sizes, selections, weights, seed."""
        facts = [
            (part.source.name, len(part.source), part.selection.strategy, part.weight, self.seed)
            for part in self.parts
        ]
        return hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest()

    def read(self, place: Place) -> Sample:
        """Reads the sample at a place of the order.

        Raises:
            ValueError: if the row is corrupt; names file and row.
        """
        part = self.parts[place.source]
        return part.source.read(self.row(place), epoch=place.epoch, seed=self.seed)

    def row(self, place: Place) -> int:
        """Returns the source's own row at a place of the order."""
        return int(self.parts[place.source].selection.to_rows(np.array([place.row], dtype=np.int64))[0])

    def statistics(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Returns whether the samples at positions have an image, and their approximate lengths in characters."""
        places: Places = self.order.places(positions)
        has_image = np.zeros(len(positions), dtype=bool)
        lengths = np.zeros(len(positions), dtype=np.int64)
        for number in np.unique(places.source).tolist():
            own = places.source == number
            rows = self.parts[number].selection.to_rows(places.row[own])
            has_image[own] = self.parts[number].source.has_image(rows)
            lengths[own] = self.parts[number].source.lengths(rows)
        return has_image, lengths


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
        image_folder: for JSON files whose entry names none; by default the file's own folder.
        index_folder: where indexes are kept; see `open_index`.

    Raises:
        ValueError: if the mixture file is faulty, a file or folder is missing or unreadable, a source has no rows, or
            none of a few rows spread over a source can be used (as with a wrong image folder).
        ModuleNotFoundError: if a package for a kind of file is not installed.
    """
    parts = []
    for entry in read_mixture_file(description, image_folder=image_folder):
        try:
            source = _open_source(entry, index_folder)
            selection = Selection(entry.strategy, len(source), f"select/{seed}/{entry.name}")
            if not len(selection):
                raise ValueError(f"{entry.name}: holds no rows; take the entry out")
            _probe(source, selection, seed)
        except ValueError as error:
            raise ValueError(f"{entry.where}: {error}") from error
        parts.append(MixturePart(source, selection, entry.weight))
    return Mixture(tuple(parts), seed)


def _open_source(entry: MixtureEntry, index_folder: Path | None) -> Source:
    if entry.kind == "easy-vqa":
        return EasyVqaSource(name=entry.name, **entry.options)
    sources = [_open_file(entry, path, index_folder) for path in entry.files]
    return sources[0] if len(sources) == 1 else JoinedSource(entry.name, sources)


def _open_file(entry: MixtureEntry, path: Path, index_folder: Path | None) -> Source:
    if entry.kind == "parquet":
        return ParquetSource(path, name=entry.name, index_folder=index_folder)
    if entry.kind == "tar":
        return TarSource(path, name=entry.name, index_folder=index_folder)
    return LlavaSource(
        path,
        name=entry.name,
        lines=entry.kind == "jsonl",
        image_folder=entry.image_folder,
        index_folder=index_folder,
    )


def _probe(source: Source, selection: Selection, seed: int) -> None:
    """Reads a few rows; only when all are unusable is the source itself wrong."""
    numbers = np.unique(np.linspace(0, len(selection) - 1, _PROBED_ROWS).astype(np.int64))
    faults = [_fault(source, row, seed) for row in selection.to_rows(numbers).tolist()]
    found: Sequence[str] = [fault for fault in faults if fault is not None]
    if len(found) == len(faults):
        raise ValueError(f"none of {len(faults)} rows looked at can be used; the first: {found[0]}")


def _fault(source: Source, row: int, seed: int) -> str | None:
    try:
        sample = source.read(row, epoch=0, seed=seed)
    except ValueError as error:
        return str(error)
    if isinstance(sample.image, Path) and not sample.image.is_file():
        return f"record {row}: there is no image {sample.image}; correct 'image_folder'"
    return None
