"""Holds a share of a mixture's pictures out of training, by what is in them alone.

The contents decide: a picture stays on its side whatever its file is called, whichever questions are asked about it,
in every data set and stage, and when others are added. Reads every picture once and decodes none.
"""

import functools
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusionvl.data.faults import Fault, try_row
from fusionvl.data.mixture import Mixture, MixturePart
from fusionvl.data.sample import Sample
from fusionvl.data.sampling_strategy import Strategy
from fusionvl.data.source import Shapes, Source
from fusionvl.run_folder import fingerprint


@dataclass(frozen=True)
class RowsOfSource:
    """Some rows of a source, as a source.

    Attributes:
        source: that they are rows of.
        rows: their numbers in it.
    """

    source: Source
    rows: NDArray[np.int64]

    @property
    def name(self) -> str:
        """The source's own."""
        return self.source.name

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the source and of which rows they are."""
        return fingerprint(self.source.fingerprint, self.rows.tobytes())

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, row: int, *, epoch: int, seed: int) -> Sample:
        """Reads a row; see `Source`."""
        return self.source.read(int(self.rows[row]), epoch=epoch, seed=seed)

    def shapes(self, rows: NDArray[np.int64]) -> Shapes:
        """As the source has them."""
        return self.source.shapes(self.rows[rows])


def split_by_picture(mixture: Mixture, share: float) -> tuple[Mixture, Mixture]:
    """Divides a mixture's rows by a hash of their pictures' contents; a row without one goes by its first question.

    Args:
        mixture: the data.
        share: of the pictures, about, that is held out.

    Returns:
        (to train on, held out), each with the parts that have rows there.

    Raises:
        ValueError: if a row or its picture cannot be read (with their number, and the first of them), or one side
            would have no rows.
    """
    faults: list[Fault] = []
    kept: list[MixturePart] = []
    held_out: list[MixturePart] = []
    for part in mixture.parts:
        rows = part.to_rows(np.arange(len(part)))
        places = [try_row(part.source, row, _place, epoch=0, seed=mixture.seed) for row in rows.tolist()]
        faults += [place for place in places if isinstance(place, Fault)]
        is_held_out = np.array([not isinstance(place, Fault) and place < share for place in places])
        for side, own in ((kept, rows[~is_held_out]), (held_out, rows[is_held_out])):
            if len(own):
                side.append(replace(part, source=RowsOfSource(part.source, own), strategy=Strategy("all")))
    if faults:
        raise ValueError(
            f"{len(faults)} of {len(mixture)} rows cannot be used, and all pictures must be readable for a share of "
            f"them to be held out; the first: {faults[0]}"
        )
    for parts, what in ((kept, "everything"), (held_out, "nothing")):
        if not parts:
            raise ValueError(
                f"a share of {share:g} holds {what} out of {len(mixture)} rows: the pictures are few; change the "
                "share, or name held-out data of its own"
            )
    return Mixture(tuple(kept), mixture.seed), Mixture(tuple(held_out), mixture.seed)


def _place(sample: Sample) -> float:
    """From 0 to 1, evenly spread over pictures: below the share it is held out.

    Raises:
        ValueError: if the picture's file cannot be read.
    """
    if isinstance(sample.image, Path):
        try:
            content = sample.image.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read the picture {sample.image}: {error.strerror}") from error
    else:
        content = sample.image or sample.turns[0].question.encode(errors="surrogatepass")
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") / 2**64
