"""What a filter is: it looks at one row and gives scores. Knows no filter in particular and no file of scores."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from fusionvl.provenance import versions_of
from fusionvl.synth.rows import Row

Score: TypeAlias = float | int | str | None
"""A number to compare with a limit, or what rows are grouped by; None where the filter does not apply."""

Scores: TypeAlias = dict[str, Score]
"""Scores of one row, by name."""


@dataclass(frozen=True)
class FilterModels:
    """What the filters that need a model are to use, as a command line names it.

    Attributes:
        text: Answers text; for `closed-book` and `blind`. See `named_model`.
        judge: Answers about images; for `judge`. `nano` is the shipped one.
        similarity: A CLIP or SigLIP model; for `similarity`.
        votes: Requests for each turn of `closed-book` and `blind`, in different words.
    """

    text: str | None = None
    judge: str | None = None
    similarity: str | None = None
    votes: int = 3


def _nothing() -> None:
    """There is nothing to give back."""


@dataclass(frozen=True)
class Filter:
    """A filter, ready to score. It removes no row; `selection.py` does.

    Attributes:
        name: In commands and folders.
        columns: Its scores by name, with what they are: `float`, `str`, or `bytes` (scores of which are hexadecimal).
        score: Scores a row, given the folder that its image path is relative to. Raises `RequestError` if this row
            could not be scored, and another time may; `ValueError` for what concerns every row.
        settings: All that the scores depend on, versions of what computes them included; JSON.
        close: Gives back connections and processes.
        devices: Where its model runs here.
    """

    name: str
    columns: Mapping[str, type]
    score: Callable[[Row, Path], Awaitable[Scores]]
    settings: dict[str, Any]
    close: Callable[[], None] = _nothing
    devices: Sequence[str] = ()


def plain_filter(
    name: str, columns: Mapping[str, type], score: Callable[[Row, Path], Scores], *packages: str
) -> Filter:
    """A filter that computes its scores here and now, with some packages."""

    async def scored(row: Row, folder: Path) -> Scores:
        return score(row, folder)

    return Filter(name, columns, scored, computed_by(*packages))


def computed_by(*packages: str) -> dict[str, Any]:
    """The versions of this package and of others, as settings of a filter."""
    names = ("fusionvl", *packages)
    versions = versions_of(names)
    return {"versions": {name: versions[name] for name in names}}
