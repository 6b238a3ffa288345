"""Several files of one data set (say, all its shards) as one source, rows in the files' order."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionvl.data.sample import Sample
from fusionvl.data.source import Source


class JoinedSource:
    """Sources one after the other.

    Args:
        name: of the whole; the parts' own names do not appear in it.
        parts: at least one.

    Raises:
        ValueError: if there are no parts.
    """

    def __init__(self, name: str, parts: Sequence[Source]) -> None:
        if not parts:
            raise ValueError(f"{name}: no files to join")
        self.name = name
        self.parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, row: int, *, epoch: int, seed: int) -> Sample:
        """Reads a row from the part that holds it.

        Raises:
            ValueError: as the part does.
        """
        part = int(np.searchsorted(self._ends, row, side="right"))
        first = int(self._ends[part - 1]) if part else 0
        return self.parts[part].read(row - first, epoch=epoch, seed=seed)

    def lengths(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """As the parts have them."""
        return self._gather(rows, np.zeros(len(rows), dtype=np.int64), lambda part, own: part.lengths(own))

    def has_image(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """As the parts have them."""
        return self._gather(rows, np.zeros(len(rows), dtype=bool), lambda part, own: part.has_image(own))

    def _gather(
        self,
        rows: NDArray[np.int64],
        into: NDArray[Any],
        ask: Callable[[Source, NDArray[np.int64]], NDArray[Any]],
    ) -> NDArray[Any]:
        owners = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(owners):
            own = owners == number
            first = self._ends[number - 1] if number else 0
            into[own] = ask(self.parts[number], rows[own] - first)
        return into
