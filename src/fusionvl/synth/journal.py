"""The journal of an open shard: one line per finished step, the row as it then was; the last line of a row counts.

A line is written by one unbuffered append, so a process killed at any moment leaves at most one torn line at the end,
which opening the journal cuts off. Knows rows and nothing of how they are made.
"""

import os
from pathlib import Path

from fusionvl.synth.rows import Row


class Journal:
    """The journal of one shard, for one writer at a time (the runner's lock sees to that).

    Args:
        path: Its file; need not exist.

    Raises:
        ValueError: When a line other than a torn last one is no row; names the line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _, self._end = _read(path)
            os.ftruncate(self._file, self._end)
        except BaseException:
            os.close(self._file)
            raise

    def rows(self) -> dict[str, Row]:
        """Read the latest state of every row that is in it, by id."""
        return _read(self.path)[0]

    def append(self, row: Row) -> None:
        """Keep the present state of a row.

        Raises:
            OSError: When the line cannot be written, say because the disk is full; the journal is then as before.
        """
        line = row.to_json().encode() + b"\n"
        written = 0
        try:
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        self._end += written

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)


def _read(path: Path) -> tuple[dict[str, Row], int]:
    """The latest state of every row, and where the last whole line ends."""
    rows, end = {}, 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                row = Row.from_json(line)
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {number}: not a row ({error}). Something else wrote into the journal: remove that "
                    "line, its row is then made again"
                ) from error
            rows[row.id] = row
            end += len(line)
    return rows, end
