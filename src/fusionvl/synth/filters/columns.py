"""What every filter gives: columns of scores, one value a row. Knows no filter and no file."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

Score: TypeAlias = float | int | str | None
"""A number to compare with a threshold, or a text that names a group; None where the filter does not apply."""

Columns: TypeAlias = dict[str, list[Score]]
"""Scores by name; every list is as long as there were rows."""


def as_columns(names: Sequence[str], scored: Iterable[Mapping[str, Score]]) -> Columns:
    """Turns the scores of single rows into columns.

    Args:
        names: Of the columns, also for when there are no rows.
        scored: The scores of each row, under exactly these names.
    """
    columns: Columns = {name: [] for name in names}
    for scores in scored:
        for name in names:
            columns[name].append(scores[name])
    return columns


def joined(names: Sequence[str], parts: Iterable[Columns]) -> Columns:
    """Puts the columns of consecutive rows one below the other."""
    whole: Columns = {name: [] for name in names}
    for part in parts:
        for name in names:
            whole[name] += part[name]
    return whole
