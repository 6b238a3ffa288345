"""The scores of a run's rows, `scores.parquet`: a column a score, with what each filter was set to.

Written whole and atomically. Knows no filter.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusionvl.data.extras import import_extra
from fusionvl.synth.filters.columns import Columns, Score

SCORES_FILE = "scores.parquet"
_RECORD = b"fusionvl.filters"


@dataclass
class ScoreTable:
    """Scores of rows.

    Attributes:
        ids: Of the rows.
        columns: Scores by name, in the order of the ids.
        filters: For each filter that ran: its `settings` and the names of its `columns`.
    """

    ids: list[str]
    columns: Columns = field(default_factory=dict)
    filters: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Tells whether two tables hold the same scores of the same rows."""
        return hashlib.sha256(json.dumps([self.ids, self.columns], sort_keys=True).encode()).hexdigest()[:16]

    def put(self, name: str, settings: dict[str, Any], columns: Columns) -> None:
        """Adds the columns of a filter, in place of those it gave before.

        Raises:
            ValueError: If a column is not as long as there are rows.
        """
        for column, scores in columns.items():
            if len(scores) != len(self.ids):
                raise ValueError(f"filter {name!r}: {len(scores)} scores in {column!r} for {len(self.ids)} rows")
        for column in self.filters.get(name, {}).get("columns", ()):
            self.columns.pop(column, None)
        self.columns |= {
            column: [score if score is None or isinstance(score, str) else float(score) for score in scores]
            for column, scores in columns.items()
        }
        self.filters[name] = {"settings": settings, "columns": list(columns)}

    def of_rows(self, ids: Sequence[str]) -> "ScoreTable":
        """The same scores for some of these rows, in another order.

        Raises:
            KeyError: If one of the rows has no scores.
        """
        places = {name: place for place, name in enumerate(self.ids)}
        order = [places[name] for name in ids]
        columns: Columns = {name: [scores[place] for place in order] for name, scores in self.columns.items()}
        return ScoreTable(list(ids), columns, dict(self.filters))

    def write(self, folder: Path) -> None:
        """Writes `scores.parquet` into the run's folder; a reader sees the old file or the whole new one."""
        arrow = import_extra("pyarrow", extra="synth", needed_for="writing scores")
        parquet = import_extra("pyarrow.parquet", extra="synth", needed_for="writing scores")
        arrays = {"id": arrow.array(self.ids, arrow.string())}
        for name, scores in self.columns.items():
            is_text = any(isinstance(score, str) for score in scores)
            arrays[name] = arrow.array(scores, arrow.string() if is_text else arrow.float64())
        table = arrow.table(arrays).replace_schema_metadata({_RECORD: json.dumps(self.filters)})
        unfinished = folder / f"{SCORES_FILE}.tmp"
        parquet.write_table(table, unfinished)
        os.replace(unfinished, folder / SCORES_FILE)


def read_scores(folder: Path) -> ScoreTable:
    """Reads the scores of a run.

    Raises:
        ValueError: If there are none, or the file is broken.
    """
    path = folder / SCORES_FILE
    if not path.is_file():
        raise ValueError(f"{folder}: holds no {SCORES_FILE}; run: fusionvl synth filter {folder}")
    parquet = import_extra("pyarrow.parquet", extra="synth", needed_for="reading scores")
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable parquet file ({error})") from error
    columns: Columns = table.to_pydict()
    filters = json.loads((table.schema.metadata or {}).get(_RECORD, b"{}"))
    return ScoreTable([str(name) for name in columns.pop("id")], columns, filters)


class ScoreJournal:
    """Scores as they come in, so that a costly filter which was stopped goes on where it was.

    One line a row, under a name that holds the filter's settings: other settings never meet these scores.

    Args:
        folder: The run's.
        name: Of the filter.
        settings: Of the filter.
    """

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        self.path = folder / "scores" / f"{name}-{digest}.jsonl"
        self._known = dict(self._lines())

    def known(self, name: str) -> dict[str, Score] | None:
        """The scores of a row, if they are there."""
        return self._known.get(name)

    def add(self, names: Sequence[str], scored: Iterable[dict[str, Score]]) -> None:
        """Writes the scores of rows. Those with errors are left out, to be asked about again next time."""
        lines = []
        for name, scores in zip(names, scored, strict=True):
            self._known[name] = scores
            if not any(value for column, value in scores.items() if column.endswith("_errors")):
                lines.append(json.dumps({"id": name, **scores}) + "\n")
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())

    def _lines(self) -> Iterable[tuple[str, dict[str, Score]]]:
        if not self.path.is_file():
            return
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # stopped in the middle of a line: the next one must not be glued to it
            os.truncate(self.path, len(whole))
        for line in whole.splitlines():
            scores = json.loads(line)
            yield scores.pop("id"), scores
