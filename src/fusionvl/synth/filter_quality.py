"""Measures the filters: `fusionvl synth measure-filters DIR`.

Spoils rows of a good run in known ways, scores them among untouched ones, and counts what each filter, with the
selection's default limits and caps, finds and what it suspects wrongly. Makes no rows and changes none of the run's.
"""

import random
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fusionvl.synth.corruptions import CORRUPTIONS, ChangeImage, Corruption
from fusionvl.synth.filtering import score_rows
from fusionvl.synth.filters.registry import Models
from fusionvl.synth.rows import Row, row_id
from fusionvl.synth.scores import ScoreTable
from fusionvl.synth.selection import Rules, default_caps, default_limits, select

UNTOUCHED = "untouched"


@dataclass(frozen=True)
class Spoiled:
    """Rows of which it is known what is wrong with them.

    Attributes:
        rows: Untouched and spoiled ones.
        fault: For each row's id, the name of its corruption or `UNTOUCHED`.
        original: For the id of a row that was added to another, that one's id.
    """

    rows: list[Row]
    fault: dict[str, str]
    original: dict[str, str]

    def add(self, row: Row, fault: str) -> None:
        """Adds a row and what is wrong with it."""
        self.rows.append(row)
        self.fault[row.id] = fault


@dataclass(frozen=True)
class FilterQuality:
    """What one filter found.

    Attributes:
        name: Of the filter.
        found: For each corruption, and for untouched rows, how many rows it flagged.
        due: Of the rows it ought to notice, how many it flagged and how many there are.
    """

    name: str
    found: Mapping[str, int]
    due: tuple[int, int]

    @property
    def flagged(self) -> int:
        """All rows it flagged."""
        return sum(self.found.values())

    @property
    def precision(self) -> float | None:
        """Of the flagged rows, the share that are spoiled in one way or another; None if it flagged none."""
        return 1 - self.found.get(UNTOUCHED, 0) / self.flagged if self.flagged else None

    @property
    def recall(self) -> float | None:
        """Of the rows that it ought to notice, the share that it flagged; None if there are none."""
        return self.due[0] / self.due[1] if self.due[1] else None


def spoil_rows(
    rows: Sequence[Row],
    folder: Path,
    target: Path,
    *,
    each: int,
    seed: int,
    corruptions: Sequence[Corruption] = CORRUPTIONS,
) -> Spoiled:
    """Spoils rows in every way that fits them; half of the rows stay untouched.

    Args:
        rows: Good ones.
        folder: What their image paths are relative to.
        target: Folder for the images of all rows.
        each: Most rows of each corruption.
        seed: Decides which rows, and how.
        corruptions: In which ways.

    Raises:
        ValueError: If there are fewer than two rows.
    """
    if len(rows) < 2:
        raise ValueError(f"measuring filters takes at least two good rows, got {len(rows)}")
    draws = random.Random(seed)
    order = draws.sample(list(rows), len(rows))
    untouched, pool = order[: len(order) // 2], order[len(order) // 2 :]
    spoiled = Spoiled([], {}, {})
    for row in untouched:
        spoiled.add(_with_image(row, row, folder, target, _copy, draws), UNTOUCHED)
    for corruption, row, changed in _assigned(untouched, pool, each, draws, corruptions):
        named = replace(changed, id=row_id("spoiled", row.id, row.kind, corruption.name))
        placed = _with_image(named, row, folder, target, corruption.image or _copy, draws)
        spoiled.add(placed, corruption.name)
        if corruption.extra:
            spoiled.original[placed.id] = row.id
    draws.shuffle(spoiled.rows)
    return spoiled


def _assigned(
    untouched: Sequence[Row],
    pool: Sequence[Row],
    each: int,
    draws: random.Random,
    corruptions: Sequence[Corruption],
) -> Iterator[tuple[Corruption, Row, Row]]:
    """Deals rows out to the corruptions they fit, one each in turn, so that few rows of a kind reach all of them.

    Yields:
        The corruption, the row, and what becomes of it. A row of the pool serves once.
    """
    free = list(pool)
    waiting = {each.name: list(untouched) if each.extra else free for each in corruptions}
    for _ in range(each):
        for corruption in (each for each in corruptions for _ in range(each.weight)):
            rows = waiting[corruption.name]
            for place, row in enumerate(rows):
                changed = None if corruption.image and row.image is None else corruption.spoil(row, draws)
                if changed is not None:
                    del rows[place]
                    yield corruption, row, changed
                    break


def _with_image(row: Row, original: Row, folder: Path, target: Path, change: ChangeImage, draws: random.Random) -> Row:
    """The row with its image in the target folder."""
    if original.image is None:
        return row
    image = Path("images") / f"{row.id}{Path(original.image).suffix}"
    (target / "images").mkdir(parents=True, exist_ok=True)
    change(folder / original.image, target / image, draws)
    return replace(row, image=image.as_posix())


def _copy(source: Path, target: Path, draws: random.Random) -> None:
    shutil.copyfile(source, target)


def measure_filters(spoiled: Spoiled, folder: Path, names: Sequence[str], models: Models) -> list[FilterQuality]:
    """Scores the rows and compares what each filter flags with what is wrong.

    A filter flags what a selection by its scores alone would drop. Of a near-duplicate and its original either may go.

    Args:
        spoiled: The rows.
        folder: What their image paths are relative to.
        names: Of the filters.
        models: For the filters that need one.
    """
    found = []
    for name, (settings, columns) in score_rows(spoiled.rows, folder, names, models).items():
        table = ScoreTable([row.id for row in spoiled.rows])
        table.put(name, settings, columns)
        rules = Rules(limits=default_limits(), caps=default_caps())
        dropped = set(select(table, [row.kind for row in spoiled.rows], rules).dropped)
        flagged = {_blamed(spoiled, row, dropped) for row in dropped}
        counts = Counter(spoiled.fault[row] for row in flagged)
        noticeable = [each.name for each in CORRUPTIONS if name in each.noticed_by]
        there = Counter(spoiled.fault.values())
        due = (sum(counts[fault] for fault in noticeable), sum(there[fault] for fault in noticeable))
        found.append(FilterQuality(name, counts, due))
    return found


def _blamed(spoiled: Spoiled, row: str, dropped: set[str]) -> str:
    """The added row, where its original went instead of it."""
    for added, original in spoiled.original.items():
        if original == row and added not in dropped:
            return added
    return row


def as_table(spoiled: Spoiled, found: Sequence[FilterQuality]) -> str:
    """What was found, as text: a line for each corruption with the rows that each filter flagged, then the sums.

    A star marks what the filter ought to notice.
    """
    there = Counter(spoiled.fault.values())
    lines = [["corruption", "rows", *(each.name for each in found)]]
    for corruption in CORRUPTIONS:
        if there[corruption.name]:
            cells = [_cell(each, corruption, there[corruption.name]) for each in found]
            lines.append([corruption.name, str(there[corruption.name]), *cells])
    lines.append([UNTOUCHED, str(there[UNTOUCHED]), *(str(each.found.get(UNTOUCHED, 0)) for each in found)])
    lines.append(["precision", "", *(_percent(each.precision) for each in found)])
    lines.append(["recall", "", *(_percent(each.recall) for each in found)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cell(each: FilterQuality, corruption: Corruption, there: int) -> str:
    count = each.found.get(corruption.name, 0)
    return f"*{count}" if each.name in corruption.noticed_by else str(count) if count else "."


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
