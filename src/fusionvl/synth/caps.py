"""Caps: which rows must go so that no name is too frequent among those that stay.

Knows names, no scores and no rows.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionvl.synth.filters.balance import SEPARATOR
from fusionvl.synth.shard_files import Marks, compute

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Cap:
    """How often a name may occur within a group; exactly one of the three is given.

    Attributes:
        count: So many times.
        share: At most this share of all occurrences that are left.
        evenness: At most so many times the share it had if all names of its family were equally frequent. A name's
            family is what follows its first word: `B of 4` is one of the family `of 4`.

    Raises:
        ValueError: If not exactly one is given, or it is out of range.
    """

    count: int | None = None
    share: float | None = None
    evenness: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.count, self.share, self.evenness) if value is not None]
        if len(given) != 1:
            raise ValueError(f"a cap has a count, a share or an evenness, and only one of them; got {self}")
        if given[0] <= 0 or (self.share is None and given[0] < 1) or (self.share is not None and self.share > 1):
            raise ValueError(f"a cap's count and evenness are at least 1, its share above 0 and at most 1; got {self}")

    def most(self, names: Iterable[str], occurrences: Numbers) -> Numbers:
        """How often each name may occur, of names that occur so often."""
        if self.count is not None:
            return np.full(len(occurrences), self.count)
        if self.share is not None:
            return np.full(len(occurrences), _most_at_share(occurrences, self.share))
        families: dict[str, list[int]] = defaultdict(list)
        for place, name in enumerate(names):
            families[name.partition(" ")[2]].append(place)
        most = np.empty(len(occurrences), dtype=np.int64)
        for members in families.values():
            most[members] = _most_at_share(occurrences[members], (self.evenness or 1) / len(members))
        return most


def over_cap(column: Any, cap: Cap) -> Marks:
    """Finds the rows of a group that must go.

    Args:
        column: A pyarrow array of the names of each row, rows to be preferred first; names are separated by line ends,
            None is none.
        cap: How often a name may occur.

    Returns:
        Whether each row goes. It does if any of its names is used up.
    """
    over = np.zeros(len(column), dtype=np.bool_)
    lists = compute.split_pattern(column, SEPARATOR)
    names = compute.list_flatten(lists).dictionary_encode()
    if not len(names):
        return over
    rows, codes = compute.list_parent_indices(lists).to_numpy(), names.indices.to_numpy()
    occurrences = np.bincount(codes, minlength=len(names.dictionary))
    most = cap.most(names.dictionary.to_pylist() if cap.evenness else (), occurrences)
    # Only rows with a name that is too frequent can go; of the others there may be millions.
    over[rows[(occurrences > most)[codes]]] = True
    used: Counter[int] = Counter()
    for row, own in _names_of(over, rows, codes):
        over[row] = any(used[code] >= most[code] for code in own)
        if not over[row]:
            used.update(own)
    return over


def _names_of(wanted: Marks, rows: Numbers, codes: Numbers) -> Iterator[tuple[int, list[int]]]:
    """The names of each row that is wanted, in order."""
    is_wanted = wanted[rows]
    rows, names = rows[is_wanted], codes[is_wanted].tolist()
    begins = np.flatnonzero(np.diff(rows, prepend=-1))
    for row, (begin, end) in zip(rows[begins].tolist(), pairwise([*begins.tolist(), len(names)]), strict=True):
        yield row, names[begin:end]


def _most_at_share(counts: Numbers, share: float) -> int:
    """The greatest cap at which no count is more than a share of their sum; of two names, one half is the least.

    One more of every frequent name lifts the sum too, so it is looked for, not computed from the sum as it is.
    """
    share = max(share, 1 / len(counts))
    low, high = 1, int(counts.max())
    while low < high:
        middle = (low + high + 1) // 2
        if middle <= math.floor(share * int(np.minimum(counts, middle).sum()) + 1e-9):
            low = middle
        else:
            high = middle - 1
    return low
