"""Chooses rows by their scores: `fusionvl synth select DIR`. Cheap, repeatable, and everything it went by is recorded.

First thresholds, each row by itself; then the best of each kind by some score; then caps on what is too frequent
among the rows that are left. Works on columns of scores; knows neither rows' texts nor images.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fusionvl.run_folder import write_whole
from fusionvl.synth.caps import Cap, over_cap
from fusionvl.synth.filters import FILTERS
from fusionvl.synth.filters.rules import FAULT_COLUMNS
from fusionvl.synth.rows import Row
from fusionvl.synth.scores import errors_column, filters_of, ok_rows, read_scores, scores_fingerprint
from fusionvl.synth.shard_files import Marks, are_ok, arrow, compute, read_rows, read_table, run_shards, write_table

Value = TypeVar("Value")

SELECTION_FILE = "selection.json"
CHOSEN_FILE = "selection.parquet"

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Limit:
    """What a score may be.

    Attributes:
        least: Rows below go.
        most: Rows above go.
    """

    least: float | None = None
    most: float | None = None

    def stops(self, scores: NDArray[np.float64]) -> Marks:
        """Which scores are out of bounds; a filter that did not apply (NaN) stops no row."""
        below = scores < (-math.inf if self.least is None else self.least)
        return np.asarray(below | (scores > (math.inf if self.most is None else self.most)))


def default_limits() -> dict[str, Limit]:
    """What a row must be like; chosen by `fusionvl synth measure-filters`."""
    return {
        **{name: Limit(most=0) for name in FAULT_COLUMNS},
        **{errors_column(name): Limit(most=0) for name in FILTERS},
        "question_characters": Limit(most=2000),
        "answer_characters": Limit(most=4000),
        "image_decodes": Limit(least=1),
        "image_side": Limit(least=64),
        "image_contrast": Limit(least=4),
        "image_sharpness": Limit(least=1),
        "ocr_worst": Limit(least=0.7),
        "closed_book_worst": Limit(least=0.5),
        "blind_guessed": Limit(most=0.99),
        "judge_worst": Limit(least=0.5),
    }


def default_caps() -> dict[str, Cap]:
    """How often a name may occur within a kind."""
    return {
        "text_group": Cap(count=1),
        "image_group": Cap(count=1),
        "letters": Cap(evenness=1.3),
        "answers": Cap(share=0.5),
    }


@dataclass(frozen=True)
class SelectionRules:
    """What a selection goes by.

    Attributes:
        limits: By the name of a score.
        best: By the name of a score, the share of each kind's rows to keep: those that score highest.
        caps: By the name of a score that names groups.

    Raises:
        ValueError: If a share is out of range.
    """

    limits: Mapping[str, Limit] = field(default_factory=default_limits)
    best: Mapping[str, float] = field(default_factory=dict)
    caps: Mapping[str, Cap] = field(default_factory=default_caps)

    def __post_init__(self) -> None:
        for name, share in self.best.items():
            if not 0 < share <= 1:
                raise ValueError(f"the best share by {name!r} must be above 0 and at most 1, got {share}")


@dataclass(frozen=True)
class Chosen:
    """Which rows were chosen.

    Attributes:
        kept: Whether each row was.
        dropped: By the name of each rule that was used, which rows it dropped. Limits drop each on its own; the best,
            and then caps, only look at rows that are left.
    """

    kept: Marks
    dropped: Mapping[str, Marks]

    @property
    def counts(self) -> dict[str, int]:
        """How many rows each rule dropped."""
        return {name: int(marks.sum()) for name, marks in self.dropped.items()}


def select_rows(folder: Path, rules: SelectionRules, names: Sequence[str] | None = None) -> tuple[Any, Chosen]:
    """Chooses rows of a run by its scores.

    Args:
        folder: The run's.
        rules: What to go by. Scores that no filter has given are not asked for.
        names: The filters to go by; all that have scored rows if there are none.

    Returns:
        The rows, as `ok_rows` gives them, and which were chosen.

    Raises:
        ValueError: If a filter has not scored every row, a rule that is no default one names no score, or one that is
            no number is to be limited.
    """
    rows, names = ok_rows(folder), names or tuple(filters_of(folder))
    if not names:
        raise ValueError(f"{folder}: holds no scores; run: fusionvl synth filter {folder}")
    greediest_first = sorted(names, key=lambda name: name != "duplicates")  # while nothing else takes memory
    return rows, select(rows, (read_scores(folder, name, rows) for name in greediest_first), rules)


def select(rows: Any, tables: Iterable[Any], rules: SelectionRules) -> Chosen:
    """Chooses rows; see `select_rows`.

    Args:
        rows: Their ids and kinds. The best, and caps, are counted within a kind.
        tables: Their scores, filter by filter. Of each only what is needed later is held in memory.
        rules: What to go by.

    Raises:
        ValueError: See `select_rows`.
    """
    dropped: dict[str, Marks] = {}
    later: dict[str, Any] = {}
    known: set[str] = set()
    for table in tables:
        arrow.default_memory_pool().release_unused()
        known |= set(table.column_names)
        dropped |= {
            name: limit.stops(_numbers(table, name))
            for name, limit in rules.limits.items()
            if name in table.column_names
        }
        later |= {name: table[name] for name in (*rules.best, *rules.caps) if name in table.column_names}
    _check_names(known, rules)
    kept = ~np.logical_or.reduce([np.zeros(len(rows), dtype=np.bool_), *dropped.values()])
    kinds = _by_kind(rows)
    for name, share in rules.best.items():
        dropped[f"best {name}"] = _worse(_numbers(later, name), share, [own[kept[own]] for own in kinds])
        kept &= ~dropped[f"best {name}"]
    for name in (name for name in rules.caps if name in later):
        dropped[name] = _over(later[name], rules.caps[name], [own[kept[own]] for own in kinds])
        kept &= ~dropped[name]
    return Chosen(kept, dropped)


def _check_names(known: set[str], rules: SelectionRules) -> None:
    """What a default names may be missing, since no filter needs to run; what a user names may not."""
    wanted = {*rules.limits, *rules.best, *rules.caps} - {*default_limits(), *default_caps()}
    if unknown := sorted(wanted - known):
        raise ValueError(f"no filter has given {unknown[0]!r}; there are {', '.join(sorted(known))}")


def _numbers(table: Any, name: str) -> NDArray[np.float64]:
    if not arrow.types.is_floating(table[name].type):
        raise ValueError(f"{name!r} holds names, no numbers: rows can be capped by it, as --cap {name}=1")
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def _by_kind(rows: Any) -> list[Places]:
    """The places of the rows of each kind, in the order of ids, which has nothing to do with what rows hold."""
    places = compute.sort_indices(rows["id"]).to_numpy()
    kinds = rows["kind"].combine_chunks().dictionary_encode().indices.to_numpy()[places]
    return [places[kinds == kind] for kind in range(kinds.max() + 1)]


def _worse(scores: NDArray[np.float64], share: float, kinds: list[Places]) -> Marks:
    """Of the rows of each kind, those that are not among its best; a row without a score is neither."""
    worse = np.zeros(len(scores), dtype=np.bool_)
    for places in kinds:
        scored = places[~np.isnan(scores[places])]
        ranked = scored[np.argsort(-scores[scored], kind="stable")]
        worse[ranked[math.ceil(share * len(ranked)) :]] = True
    return worse


def _over(names: Any, cap: Cap, kinds: list[Places]) -> Marks:
    """Of the rows of each kind, those that a cap drops."""
    over = np.zeros(len(names), dtype=np.bool_)
    whole = names.combine_chunks()
    for places in kinds:
        over[places] = over_cap(whole.take(arrow.array(places)).cast("string"), cap)
    return over


def write_selection(folder: Path, rows: Any, chosen: Chosen, rules: SelectionRules) -> dict[str, Any]:
    """Records a selection: which rows in `selection.parquet`, what it went by in `selection.json`.

    Returns:
        What `selection.json` holds: rules, counts, and a fingerprint by which others know that scores have changed.
    """
    columns = {"id": rows["id"], "kept": chosen.kept}
    columns |= {name: marks for name, marks in chosen.dropped.items() if marks.any()}
    write_table(folder / CHOSEN_FILE, arrow.table(columns))
    record = {
        "rules": {
            "limits": {name: asdict(limit) for name, limit in rules.limits.items()},
            "best": dict(rules.best),
            "caps": {name: asdict(cap) for name, cap in rules.caps.items()},
        },
        "filters": filters_of(folder),
        "rows": len(rows),
        "kept": int(chosen.kept.sum()),
        "dropped_by": chosen.counts,
        "scores": scores_fingerprint(folder),
    }
    write_whole(folder / SELECTION_FILE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return record


def read_selection(folder: Path) -> dict[str, Any] | None:
    """The record of a run's selection, as `write_selection` wrote it; None where nothing is selected yet.

    Raises:
        ValueError: If scores have changed since.
    """
    path = folder / SELECTION_FILE
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if record["scores"] != scores_fingerprint(folder):
        raise ValueError(f"{path}: was made from other scores; run again: fusionvl synth select {folder}")
    return record


def chosen_by_shard(folder: Path, *, selected: bool) -> Iterator[tuple[Path, Marks]]:
    """Each finished shard of a run and, for each of its rows, whether it is chosen.

    Args:
        folder: The run's.
        selected: Whether to go by its recorded selection; if not, every row that came out well is chosen.

    Raises:
        ValueError: If there are no rows, or others than were selected from.
    """
    chosen = read_table(folder / CHOSEN_FILE, ["id", "kept"]) if selected else None
    start = 0
    changed = ValueError(f"{folder}: rows have changed since they were chosen; run: fusionvl synth filter, and select")
    for path in run_shards(folder):
        rows = read_table(path, ["id", "status"])
        marks = are_ok(rows)
        if chosen is not None:
            part = chosen.slice(start, int(marks.sum()))
            if not rows["id"].filter(arrow.array(marks)).equals(part["id"]):
                raise changed
            marks[marks] = part["kept"].to_numpy()
            start += len(part)
        yield path, marks
    if chosen is not None and start < len(chosen):
        raise changed


def chosen_rows(folder: Path, *, selected: bool) -> Iterator[Row]:
    """The chosen rows of a run, in order, one shard in memory at a time; see `chosen_by_shard`."""
    for path, marks in chosen_by_shard(folder, selected=selected):
        yield from compress(read_rows(path), marks)


def asked_rules(limits: Sequence[str], best: Sequence[str], caps: Sequence[str]) -> SelectionRules:
    """The default rules, changed as a command line asks.

    Args:
        limits: `SCORE=LEAST:MOST`; either side may be left out.
        best: `SCORE=SHARE`.
        caps: `NAME=CAP`: a whole number is a count, a fraction a share, and `off` lifts the cap.

    Raises:
        ValueError: If a text is not of its form, or a number is out of range.
    """
    asked = dict(_parsed(text, "NAME=COUNT, NAME=SHARE or NAME=off", _cap) for text in caps)
    return SelectionRules(
        default_limits()
        | dict(
            _parsed(text, "SCORE=LEAST:MOST, as judge_worst=0.5: or answer_characters=:200", _limit) for text in limits
        ),
        dict(_parsed(text, "SCORE=SHARE, as similarity=0.8", float) for text in best),
        {name: cap for name, cap in (default_caps() | asked).items() if cap is not None},
    )


def _parsed(text: str, form: str, parse: Callable[[str], Value]) -> tuple[str, Value]:
    name, equals, value = text.partition("=")
    try:
        if not name or not equals:
            raise ValueError("it names no score")
        return name, parse(value)
    except ValueError as error:
        raise ValueError(f"{text!r} is not of the form {form} ({error})") from error


def _limit(text: str) -> Limit:
    least, colon, most = text.partition(":")
    if not colon:
        raise ValueError("there is no colon")
    return Limit(float(least) if least else None, float(most) if most else None)


def _cap(text: str) -> Cap | None:
    if text == "off":
        return None
    return Cap(count=int(text)) if text.isdecimal() else Cap(share=float(text))
