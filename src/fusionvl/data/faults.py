"""A row that cannot be used, and trying one. Knows no order and no training.

What it takes to use a sample (opening its image, encoding its text) is the caller's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from fusionvl.data.sample import OverLongError, Sample
from fusionvl.data.source import Source

Ready = TypeVar("Ready")
FaultKind: TypeAlias = Literal["corrupt", "over-long"]


@dataclass(frozen=True)
class Fault:
    """A row that cannot be used.

    Attributes:
        source: the data set.
        row: of the source.
        id: the sample's id, or None if the row could not be read so far.
        epoch: the pass over the source.
        kind: `corrupt`, or `over-long` for a sound sample that does not fit.
        reason: what is wrong.
    """

    source: str
    row: int
    id: str | None
    epoch: int
    kind: FaultKind
    reason: str

    def __str__(self) -> str:
        named = "" if self.id is None else f" (id {self.id!r})"
        return f"{self.source}, row {self.row}{named}: {self.reason}"


def try_row(source: Source, row: int, use: Callable[[Sample], Ready], *, epoch: int, seed: int) -> Ready | Fault:
    """Reads a row and uses it.

    Args:
        source: the data set.
        row: of the source.
        use: makes of a sample what the caller wants; raises `OverLongError` for one that does not fit, and another
            `ValueError` for one that is corrupt.
        epoch: the pass over the source.
        seed: the run's.

    Returns:
        What `use` made of the sample, or why there is nothing.
    """
    found = None
    try:
        sample = source.read(row, epoch=epoch, seed=seed)
        found = sample.id
        return use(sample)
    except ValueError as error:
        kind: FaultKind = "over-long" if isinstance(error, OverLongError) else "corrupt"
        return Fault(source.name, row, found, epoch, kind, str(error))


def check_image(sample: Sample) -> None:
    """Looks whether the image's file is there, and no further.

    Raises:
        ValueError: if it is not.
    """
    if isinstance(sample.image, Path) and not sample.image.is_file():
        raise ValueError(f"there is no image {sample.image}; correct 'image_folder'")
