"""Caps: which rows must go so that no name is too frequent among those that stay.

Knows groups and names, no scores and no rows.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from fusionvl.synth.filters.balance import SEPARATOR


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

    def most(self, occurrences: Counter[str]) -> dict[str, int]:
        """How often each name may occur, of names that occur so often."""
        if self.count is not None:
            return dict.fromkeys(occurrences, self.count)
        if self.share is not None:
            return dict.fromkeys(occurrences, _most_at_share(list(occurrences.values()), self.share))
        families: dict[str, Counter[str]] = defaultdict(Counter)
        for name, times in occurrences.items():
            families[name.partition(" ")[2]][name] = times
        most: dict[str, int] = {}
        for family in families.values():
            limit = _most_at_share(list(family.values()), (self.evenness or 1) / len(family))
            most |= dict.fromkeys(family, limit)
        return most


def capped(rows: Sequence[tuple[str, object]], cap: Cap) -> list[int]:
    """Finds the rows that must go.

    Args:
        rows: Group and names of each row, those to be preferred first; names are separated by line ends, None is none.
        cap: How often a name may occur in a group.

    Returns:
        The places of the rows to drop. A row goes if any of its names is used up.
    """
    groups: dict[str, list[tuple[int, list[str]]]] = defaultdict(list)
    for place, (group, names) in enumerate(rows):
        if names is not None:
            groups[group].append((place, str(names).split(SEPARATOR)))
    over = []
    for members in groups.values():
        most = cap.most(Counter(name for _, names in members for name in names))
        used: Counter[str] = Counter()
        for place, names in members:
            if any(used[name] >= most[name] for name in names):
                over.append(place)
            else:
                used.update(names)
    return sorted(over)


def _most_at_share(counts: list[int], share: float) -> int:
    """The greatest cap at which no count is more than a share of their sum; of two names, one half is the least.

    One more of every frequent name lifts the sum too, so it is looked for, not computed from the sum as it is.
    """
    share = max(share, 1 / len(counts))
    low, high = 1, max(counts)
    while low < high:
        middle = (low + high + 1) // 2
        if min(middle, max(counts)) <= math.floor(share * sum(min(count, middle) for count in counts) + 1e-9):
            low = middle
        else:
            high = middle - 1
    return low
