"""One shard while it is being made: its lock, its journal, and how it becomes a finished file.

At any moment a shard is in one of three states on disk: nothing; a journal (open); a parquet file without a journal
(finished). A journal next to a finished file is an open shard again: it was reopened for its errors, or the process
ended between writing the one and removing the other, and finishing it once more changes nothing.
"""

import os
from collections import Counter, deque
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from fusionvl.synth.journal import Journal
from fusionvl.synth.plan import Plan
from fusionvl.synth.row_files import count_statuses, read_rows, shard_path, write_rows
from fusionvl.synth.rows import Row


def is_settled(folder: Path, number: int, retry_errors: bool) -> bool:
    """Whether nothing is left to do for a shard, not even errors to be tried again when they shall be."""
    if not shard_path(folder, number).exists() or shard_path(folder, number, ".jsonl").exists():
        return False
    return not (retry_errors and count_statuses(shard_path(folder, number))["error"])


class OpenShard:
    """A shard that this process makes, and no other at the same time.

    Args:
        folder: The run folder.
        plan: The rows of the run.
        number: Of the shard.
        retry_errors: Whether rows with errors are tried again; they keep what earlier steps brought.
        patience: Seconds to wait for another process to let go of it.

    Attributes:
        number: Of the shard.
        finished: How many rows had each status when it was opened.
        open_rows: Those that were not finished then, to be taken from.

    Raises:
        ValueError: When another process makes this shard, or its journal holds something else.
    """

    def __init__(
        self, folder: Path, plan: Plan, number: int, retry_errors: bool = False, patience: float = 0.0
    ) -> None:
        self.number = number
        self._plan = plan
        self._final = shard_path(folder, number)
        self._final.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(shard_path(folder, number, ".lock"))
        try:
            self._lock.acquire(timeout=patience)
        except Timeout as error:
            raise ValueError(
                f"Shard {number} of {folder} is being made by another process. Give every process a share of its own "
                "(--shard 0/2 and --shard 1/2), or wait until it has ended"
            ) from error
        journal = shard_path(folder, number, ".jsonl")
        try:
            if self._final.exists() and not journal.exists():
                _reopen(self._final, journal)
            self._journal = Journal(journal)
            rows = self._rows()
            if retry_errors:
                rows = [_tried_again(row) for row in rows]
        except BaseException:
            self._lock.release()
            raise
        self.finished: Counter[str] = Counter(row.status for row in rows if row.status != "open")
        self.open_rows = deque(row for row in rows if row.status == "open")
        self._left = len(self.open_rows)

    @property
    def is_complete(self) -> bool:
        """Whether every row is finished."""
        return self._left == 0

    def keep(self, row: Row) -> None:
        """Write down the state of a row.

        Raises:
            OSError: When it cannot be written.
        """
        self._journal.append(row)
        self._left -= row.status != "open"

    def finish(self) -> None:
        """Turn the journal into the finished file.

        Raises:
            OSError: When it cannot be written; the shard then stays open.
        """
        write_rows(self._final, self._rows())
        self._journal.path.unlink()

    def close(self) -> None:
        """Give back files and lock; an unfinished shard goes on another time."""
        self._journal.close()
        self._lock.release()

    def _rows(self) -> list[Row]:
        """Every row of the shard in its present state, in order."""
        known = self._journal.rows()
        rows = [known.pop(row.id, row) for row in self._plan.rows(self.number)]
        if known:
            raise ValueError(f"{self._journal.path} holds {len(known)} rows that are not in the plan of this run")
        return rows


def _reopen(final: Path, journal: Path) -> None:
    """Write a finished shard as a journal, whole or not at all."""
    unfinished = journal.with_name(journal.name + ".unfinished")
    unfinished.write_text("".join(f"{row.to_json()}\n" for row in read_rows(final)), encoding="utf-8")
    os.replace(unfinished, journal)


def _tried_again(row: Row) -> Row:
    return replace(row, status="open", reason="") if row.status == "error" else row
