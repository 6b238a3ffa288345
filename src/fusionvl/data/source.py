"""What every data set offers: a name, a number of rows, any row as a sample, and cheap facts about rows.

Sources read from disk when asked and hold no rows in memory. They pickle without open files, so worker processes can
have them. A source knows nothing of mixtures, order or training.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fusionvl.data.sample import Sample


@dataclass(frozen=True)
class Shapes:
    """Cheap facts about rows, from the index alone: three arrays of one length. A corrupt row may have any.

    Attributes:
        characters: int64, of all questions and answers.
        turns: int64, questions with their answers.
        has_image: bool.
    """

    characters: NDArray[np.int64]
    turns: NDArray[np.int64]
    has_image: NDArray[np.bool_]


def gather_shapes(owners: NDArray[np.int64], ask: Callable[[int, NDArray[np.bool_]], Shapes]) -> Shapes:
    """Collects the shapes of rows that belong to several owners.

    Args:
        owners: the number of each row's owner.
        ask: takes an owner's number and a mask of its rows; returns their shapes.
    """
    count = len(owners)
    found = Shapes(np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.bool_))
    for number in np.unique(owners).tolist():
        own = owners == number
        shapes = ask(number, own)
        for each in fields(Shapes):
            getattr(found, each.name)[own] = getattr(shapes, each.name)
    return found


class Source(Protocol):
    """A data set with random access by row."""

    @property
    def name(self) -> str:
        """Names the source in samples, counts and messages."""

    @property
    def fingerprint(self) -> str:
        """Changes when the contents do, images in files of their own left out."""

    def __len__(self) -> int:
        """The number of rows."""

    def read(self, row: int, *, epoch: int, seed: int) -> Sample:
        """Reads a row.

        Args:
            row: from 0 to the length, exclusive.
            epoch: the pass over the source; sources that draw their conversations draw others in another pass.
            seed: the run's seed, for the same sources.

        Raises:
            ValueError: if the row is corrupt; names the file and the row.
        """

    def shapes(self, rows: NDArray[np.int64]) -> Shapes:
        """Characters, turns and presence of an image, from the index alone."""
