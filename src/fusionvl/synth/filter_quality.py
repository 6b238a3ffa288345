"""Measures the filters: `fusionvl synth measure-filters DIR`.

Spoils rows of a good run in known ways, scores them among untouched ones, and counts what each filter, with the
selection's default limits and caps, finds and what it suspects wrongly. What is scored is a small run folder of its
own; the run stays as it is.
"""

import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from fusionvl.synth.corruptions import CORRUPTIONS, ChangeImage, Corruption
from fusionvl.synth.filtering import PARALLEL, filter_run
from fusionvl.synth.filters.filter import FilterModels
from fusionvl.synth.rows import Row, row_id
from fusionvl.synth.selection import SelectionRules, select_rows
from fusionvl.synth.shard_files import ROW_SCHEMA, SHARD_FOLDER, arrow, finished_rows, shard_path, write_records
from fusionvl.text_table import aligned

UNTOUCHED = "untouched"
_MOST_ROWS = 20_000  # of a run: enough for every corruption, and they are all held in memory


@dataclass(frozen=True)
class Spoiled:
    """What is wrong with the rows of a run folder.

    Attributes:
        fault: For each row's id, the name of its corruption or `UNTOUCHED`.
        original: For the id of a row that was added to another, that one's id.
    """

    fault: dict[str, str]
    original: dict[str, str]

    def flagged(self, dropped: set[str]) -> Counter[str]:
        """How many of the dropped rows have each fault. Of a near-duplicate and its original either may go."""
        added = {original: row for row, original in self.original.items() if row not in dropped}
        return Counter(self.fault[row] for row in {added.get(row, row) for row in dropped})


@dataclass(frozen=True)
class FilterQuality:
    """What one filter found.

    Attributes:
        name: Of the filter.
        found: For each corruption, and for untouched rows, how many rows it flagged.
        recall: Of the rows that it ought to notice, the share that it flagged; None if there are none.
    """

    name: str
    found: Counter[str]
    recall: float | None

    @property
    def precision(self) -> float | None:
        """Of the flagged rows, the share that are spoiled in one way or another; None if it flagged none."""
        return 1 - self.found[UNTOUCHED] / self.found.total() if self.found else None


def spoil_run(
    folder: Path, target: Path, *, each: int, seed: int, corruptions: Sequence[Corruption] = CORRUPTIONS
) -> Spoiled:
    """Spoils rows of a run in every way that fits them, in a run folder of their own; half of them stay untouched.

    Args:
        folder: Of a good run; its first 20,000 sound rows are taken.
        target: Folder to write into.
        each: Most rows of each corruption.
        seed: Decides which rows, and how.
        corruptions: In which ways.

    Raises:
        ValueError: If there are fewer than two rows.
    """
    rows = list(islice((row for row in finished_rows(folder) if row.status == "ok"), _MOST_ROWS))
    if len(rows) < 2:
        raise ValueError(f"{folder}: measuring filters takes at least two good rows, got {len(rows)}")
    draws = random.Random(seed)
    order = draws.sample(rows, len(rows))
    untouched, pool = order[: len(order) // 2], order[len(order) // 2 :]
    spoiled, made = Spoiled({}, {}), []
    for row in untouched:
        made.append(_with_image(row, row, folder, target, _copy, draws))
        spoiled.fault[row.id] = UNTOUCHED
    for corruption, row, changed in _assigned(untouched, pool, each, draws, corruptions):
        named = replace(changed, id=row_id("spoiled", row.id, row.kind, corruption.name))
        made.append(_with_image(named, row, folder, target, corruption.image or _copy, draws))
        spoiled.fault[named.id] = corruption.name
        if corruption.extra:
            spoiled.original[named.id] = row.id
    draws.shuffle(made)
    write_records(shard_path(target / SHARD_FOLDER, 0), [row.to_dict() for row in made], ROW_SCHEMA)
    return spoiled


def _assigned(
    untouched: Sequence[Row], pool: list[Row], each: int, draws: random.Random, corruptions: Sequence[Corruption]
) -> Iterator[tuple[Corruption, Row, Row]]:
    """Deals rows out to the corruptions they fit, one each in turn, so that few rows of a kind reach all of them.

    Yields:
        The corruption, the row, and what becomes of it. A row of the pool serves once.
    """
    waiting = {each.name: list(untouched) if each.extra else pool for each in corruptions}
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


def measure_filters(
    spoiled: Spoiled, folder: Path, names: Sequence[str], models: FilterModels | None = None, parallel: int = PARALLEL
) -> list[FilterQuality]:
    """Scores the rows and compares what each filter flags with what is wrong.

    A filter flags what a selection by its scores alone would drop.

    Args:
        spoiled: What is wrong with the rows.
        folder: Where `spoil_run` wrote them.
        names: Of the filters.
        models: For the filters that need one.
        parallel: How many rows are scored at once.
    """
    filter_run(folder, names, models, parallel=parallel)
    there = Counter(spoiled.fault.values())
    found = []
    for name in dict.fromkeys(names):
        rows, chosen = select_rows(folder, SelectionRules(), [name])
        dropped = rows["id"].filter(arrow.array(~chosen.kept))
        counts = spoiled.flagged(set(dropped.to_pylist()))
        noticeable = [each.name for each in CORRUPTIONS if name in each.noticed_by]
        due = sum(there[fault] for fault in noticeable)
        found.append(FilterQuality(name, counts, sum(counts[fault] for fault in noticeable) / due if due else None))
    return found


def as_table(spoiled: Spoiled, found: Sequence[FilterQuality]) -> str:
    """What was found, as text: a line for each corruption with the rows that each filter flagged, then the sums.

    A star marks what the filter ought to notice.
    """
    there = Counter(spoiled.fault.values())
    lines = [["corruption", "rows", *(each.name for each in found)]]
    for corruption in CORRUPTIONS:
        if there[corruption.name]:
            cells = [_cell(each, corruption) for each in found]
            lines.append([corruption.name, str(there[corruption.name]), *cells])
    lines.append([UNTOUCHED, str(there[UNTOUCHED]), *(str(each.found[UNTOUCHED]) for each in found)])
    lines.append(["precision", "", *(_percent(each.precision) for each in found)])
    lines.append(["recall", "", *(_percent(each.recall) for each in found)])
    return "\n".join(aligned(lines))


def _cell(each: FilterQuality, corruption: Corruption) -> str:
    count = each.found[corruption.name]
    return f"*{count}" if each.name in corruption.noticed_by else str(count) if count else "."


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
