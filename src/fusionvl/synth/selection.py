"""Chooses rows by their scores: `fusionvl synth select DIR`. Cheap, repeatable, and everything it went by is recorded.

First thresholds, each row by itself; then the best of each kind by some score; then caps on what is too frequent
among the rows that are left. Reads scores only, neither rows' texts nor images.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fusionvl.synth.caps import Cap, capped
from fusionvl.synth.filters.columns import Columns
from fusionvl.synth.filters.rules import FAULT_COLUMNS
from fusionvl.synth.scores import ScoreTable

SELECTION_FILE = "selection.json"


@dataclass(frozen=True)
class Limit:
    """What a score may be.

    Attributes:
        least: Rows below go.
        most: Rows above go.
    """

    least: float | None = None
    most: float | None = None

    def allows(self, score: object) -> bool:
        """Whether a score is within; a filter that did not apply (None) stops no row."""
        if not isinstance(score, int | float):
            return True
        return (self.least is None or score >= self.least) and (self.most is None or score <= self.most)


def default_limits() -> dict[str, Limit]:
    """What a row must be like; chosen by `fusionvl synth measure-filters`."""
    return {name: Limit(most=0) for name in FAULT_COLUMNS} | {
        "question_characters": Limit(most=2000),
        "answer_characters": Limit(most=4000),
        "image_decodes": Limit(least=1),
        "image_side": Limit(least=64),
        "image_contrast": Limit(least=4),
        "image_sharpness": Limit(least=1),
        "ocr_worst": Limit(least=0.7),
        "closed_book_worst": Limit(least=0.5),
        "closed_book_errors": Limit(most=0),
        "blind_guessed": Limit(most=0.99),
        "blind_errors": Limit(most=0),
        "judge_worst": Limit(least=0.5),
        "judge_errors": Limit(most=0),
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
class Rules:
    """What a selection goes by.

    Attributes:
        limits: By the name of a score.
        best: By the name of a score, the share of each kind's rows to keep: those that score highest.
        caps: By the name of a score that names groups.
    """

    limits: Mapping[str, Limit] = field(default_factory=default_limits)
    best: Mapping[str, float] = field(default_factory=dict)
    caps: Mapping[str, Cap] = field(default_factory=default_caps)

    def __post_init__(self) -> None:
        for name, share in self.best.items():
            if not 0 < share <= 1:
                raise ValueError(f"the best share by {name!r} must be above 0 and at most 1, got {share}")


@dataclass(frozen=True)
class Selection:
    """Which rows were chosen.

    Attributes:
        kept: Ids, in the run's order.
        dropped: Why each of the others went: the names of the scores that were out of bounds.
    """

    kept: tuple[str, ...]
    dropped: Mapping[str, tuple[str, ...]]


def select(table: ScoreTable, kinds: Sequence[str], rules: Rules) -> Selection:
    """Chooses rows.

    Args:
        table: Their scores.
        kinds: The rows' kinds, in the table's order; the best, and caps, are counted within a kind.
        rules: What to go by. Scores that no filter has given are not asked for.

    Raises:
        ValueError: If there are not as many kinds as rows, or a rule that is no default one names no score.
    """
    if len(kinds) != len(table.ids):
        raise ValueError(f"{len(kinds)} kinds for {len(table.ids)} scored rows; run the filters again")
    why: dict[int, list[str]] = {}
    _check_names(table.columns, rules)
    for name, limit in rules.limits.items():
        for number, score in enumerate(table.columns.get(name, ())):
            if not limit.allows(score):
                why.setdefault(number, []).append(name)
    for name, share in rules.best.items():
        for number in _worse(table.columns, name, share, kinds, why):
            why.setdefault(number, []).append(f"best {name}")
    order = sorted((number for number in range(len(kinds)) if number not in why), key=lambda n: table.ids[n])
    for name, cap in rules.caps.items():
        if name in table.columns:
            groups = [(kinds[number], table.columns[name][number]) for number in order]
            over = {order[place] for place in capped(groups, cap)}
            why |= {number: [name] for number in over}
            order = [number for number in order if number not in over]
    return Selection(
        kept=tuple(table.ids[number] for number in sorted(order)),
        dropped={table.ids[number]: tuple(names) for number, names in sorted(why.items())},
    )


def _check_names(columns: Columns, rules: Rules) -> None:
    """What a default names may be missing, since no filter needs to run; what a user names may not."""
    wanted = {*rules.limits, *rules.best, *rules.caps} - {*default_limits(), *default_caps()}
    if unknown := sorted(wanted - set(columns)):
        raise ValueError(f"no filter has given {unknown[0]!r}; there are {', '.join(sorted(columns))}")


def _worse(columns: Columns, name: str, share: float, kinds: Sequence[str], gone: Mapping[int, object]) -> list[int]:
    """Of the rows of each kind that are left, those that are not among its best."""
    worse = []
    for kind in dict.fromkeys(kinds):
        scored = [
            (score, number)
            for number, score in enumerate(columns[name])
            if kinds[number] == kind and number not in gone and isinstance(score, int | float)
        ]
        scored.sort(reverse=True)
        worse += [number for _, number in scored[math.ceil(share * len(scored)) :]]
    return worse


def write_selection(folder: Path, table: ScoreTable, rules: Rules, selection: Selection) -> dict[str, Any]:
    """Records a selection in `selection.json`.

    Returns:
        What was written: rules, counts, and digests by which a later export knows that nothing has changed.
    """
    record = {
        "rules": {
            "limits": {name: asdict(limit) for name, limit in rules.limits.items()},
            "best": dict(rules.best),
            "caps": {name: asdict(cap) for name, cap in rules.caps.items()},
        },
        "used": [name for name in (*rules.limits, *rules.best, *rules.caps) if name in table.columns],
        "filters": table.filters,
        "rows": len(table.ids),
        "kept": len(selection.kept),
        "dropped_by": dict(Counter(name for names in selection.dropped.values() for name in names).most_common()),
        "scores_digest": table.digest,
        "kept_digest": _digest(selection.kept),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (folder / SELECTION_FILE).write_text(text + "\n", encoding="utf-8")
    return record


def recorded_selection(folder: Path, table: ScoreTable, kinds: Sequence[str]) -> Selection:
    """Repeats the selection that `selection.json` records.

    Raises:
        ValueError: If there is none, or scores have changed since.
    """
    path = folder / SELECTION_FILE
    if not path.is_file():
        raise ValueError(f"{folder}: holds no {SELECTION_FILE}; run: fusionvl synth select {folder}")
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["scores_digest"] != table.digest:
        raise ValueError(f"{path}: was made from other scores; run again: fusionvl synth select {folder}")
    rules = Rules(
        limits={name: Limit(**limit) for name, limit in record["rules"]["limits"].items()},
        best=record["rules"]["best"],
        caps={name: Cap(**cap) for name, cap in record["rules"]["caps"].items()},
    )
    return select(table, kinds, rules)


def parsed_limit(text: str) -> tuple[str, Limit]:
    """Reads `SCORE=LEAST:MOST`; either side may be left out.

    Raises:
        ValueError: If the text is not of this form.
    """
    name, equals, bounds = text.partition("=")
    least, colon, most = bounds.partition(":")
    try:
        limit = Limit(float(least) if least else None, float(most) if most else None)
    except ValueError:
        colon = ""
    if not (name and equals and colon):
        raise ValueError(
            f"a limit is written SCORE=LEAST:MOST, as judge_worst=0.5: or question_characters=:200; got {text!r}"
        )
    return name, limit


def parsed_best(text: str) -> tuple[str, float]:
    """Reads `SCORE=SHARE`.

    Raises:
        ValueError: If the text is not of this form.
    """
    name, _, share = text.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise ValueError(f"the best are written SCORE=SHARE, as similarity=0.8; got {text!r}") from None


def parsed_cap(text: str) -> tuple[str, Cap | None]:
    """Reads `NAME=CAP`: a whole number is a count, a fraction a share, and `off` is no cap.

    Raises:
        ValueError: If the text is not of this form, or the number is out of range.
    """
    name, _, value = text.partition("=")
    if value == "off":
        return name, None
    if value.isdecimal():
        return name, Cap(count=int(value))
    try:
        return name, Cap(share=float(value))
    except ValueError as error:
        raise ValueError(f"a cap is written NAME=COUNT, NAME=SHARE or NAME=off; got {text!r} ({error})") from None


def _digest(ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
