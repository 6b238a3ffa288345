"""All filters by name, made ready to score the rows of a run.

Knows how each is called and what of it is to be recorded; not how rows are read nor where scores are kept.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionvl.synth.filters.asking import Model
from fusionvl.synth.filters.balance import BALANCE_COLUMNS, score_balance
from fusionvl.synth.filters.blind import BLIND_COLUMNS, score_blind
from fusionvl.synth.filters.closed_book import CLOSED_BOOK_COLUMNS, score_closed_book
from fusionvl.synth.filters.columns import Columns
from fusionvl.synth.filters.duplicates import DUPLICATE_COLUMNS, Duplicates
from fusionvl.synth.filters.image_checks import IMAGE_COLUMNS, score_images
from fusionvl.synth.filters.judge import JUDGE_COLUMNS, score_judge
from fusionvl.synth.filters.ocr import OCR_COLUMNS, rapid_reader, score_ocr
from fusionvl.synth.filters.rules import RULE_COLUMNS, score_rules
from fusionvl.synth.filters.similarity import SIMILARITY_COLUMNS, Similarity
from fusionvl.synth.rows import Row

NEEDS_NO_MODEL = ("rules", "images", "duplicates", "balance")
"""The filters that run anywhere, at once."""

WHEN_ASKED = ("ocr",)
"""Those that need no model of the user's, but an extra, and take their time."""

NEEDS_MODEL = {
    "closed-book": "a text model",
    "blind": "a text model",
    "judge": "a model that sees",
    "similarity": "a CLIP or SigLIP model",
}
"""The other filters, and what each needs."""


@dataclass(frozen=True)
class Filter:
    """A filter, ready to score.

    Attributes:
        name: In commands and records.
        columns: What it gives.
        score: Scores rows, which must come in the run's order; image paths are relative to the folder.
        settings: What its scores depend on.
        costly: Whether asking again is to be avoided, so that a run that was stopped goes on where it was.
    """

    name: str
    columns: tuple[str, ...]
    score: Callable[[Sequence[Row], Path], Columns]
    settings: dict[str, Any]
    costly: bool = False


@dataclass(frozen=True)
class Models:
    """What the filters that need a model are to use.

    Attributes:
        text: Answers text; for `closed-book` and `blind`.
        text_name: What to call it in records.
        judge: Answers about images; for `judge`.
        judge_name: What to call it in records.
        similarity: Name or folder of a CLIP or SigLIP model; for `similarity`.
        votes: Requests for each turn of `closed-book` and `blind`.
        parallel: Most requests in flight.
    """

    text: Model | None = None
    text_name: str = ""
    judge: Model | None = None
    judge_name: str = ""
    similarity: str | None = None
    votes: int = 3
    parallel: int = 16

    def available(self) -> tuple[str, ...]:
        """The filters that can run with these models, in the order to run them in."""
        return (
            *NEEDS_NO_MODEL,
            *(("closed-book", "blind") if self.text is not None else ()),
            *(("judge",) if self.judge is not None else ()),
            *(("similarity",) if self.similarity is not None else ()),
        )


def make_filter(name: str, models: Models, loop: asyncio.Runner) -> Filter:
    """Makes a filter ready.

    Args:
        name: One of `NEEDS_NO_MODEL`, `WHEN_ASKED` or `NEEDS_MODEL`.
        models: What to ask.
        loop: Where requests run; an endpoint's connections belong to one loop.

    Raises:
        ValueError: If there is no such filter, or the model it needs is not given.
        ModuleNotFoundError: If the extra it needs is not installed.
    """
    if name in NEEDS_NO_MODEL:
        return _without_model(name)
    if name == "ocr":
        read = rapid_reader()
        return Filter(name, OCR_COLUMNS, lambda rows, folder: score_ocr(rows, folder, read), {}, costly=True)
    if name in ("closed-book", "blind") and models.text is not None:
        return _with_text_model(name, models, models.text, loop)
    if name == "judge" and models.judge is not None:
        return _with_judge(models, models.judge, loop)
    if name == "similarity" and models.similarity is not None:
        return _with_similarity(models.similarity)
    if name in NEEDS_MODEL:
        raise ValueError(f"the filter {name!r} needs {NEEDS_MODEL[name]}; none is given")
    raise ValueError(f"there is no filter {name!r}, only {', '.join((*NEEDS_NO_MODEL, *WHEN_ASKED, *NEEDS_MODEL))}")


def _without_model(name: str) -> Filter:
    if name == "rules":
        return Filter(name, RULE_COLUMNS, lambda rows, folder: score_rules(rows), {})
    if name == "images":
        return Filter(name, IMAGE_COLUMNS, score_images, {})
    if name == "duplicates":
        finder = Duplicates()
        return Filter(name, DUPLICATE_COLUMNS, finder.score, finder.settings)
    return Filter(name, BALANCE_COLUMNS, lambda rows, folder: score_balance(rows), {})


def _with_text_model(name: str, models: Models, model: Model, loop: asyncio.Runner) -> Filter:
    score, columns = {
        "closed-book": (score_closed_book, CLOSED_BOOK_COLUMNS),
        "blind": (score_blind, BLIND_COLUMNS),
    }[name]

    def run(rows: Sequence[Row], folder: Path) -> Columns:
        return loop.run(score(rows, model, votes=models.votes, parallel=models.parallel))

    return Filter(name, columns, run, {"model": models.text_name, "votes": models.votes}, costly=True)


def _with_judge(models: Models, judge: Model, loop: asyncio.Runner) -> Filter:
    def run(rows: Sequence[Row], folder: Path) -> Columns:
        return loop.run(score_judge(rows, folder, judge, parallel=models.parallel))

    return Filter("judge", JUDGE_COLUMNS, run, {"model": models.judge_name}, costly=True)


def _with_similarity(model: str) -> Filter:
    scorer = Similarity(model)
    return Filter("similarity", SIMILARITY_COLUMNS, scorer.score, {"model": model}, costly=True)
