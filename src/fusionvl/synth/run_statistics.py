"""Counts what is in a run, shard by shard, over columns: rows, reasons, lengths, answers, models and prompts.

Knows no words and no pictures of a datasheet.
"""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionvl.synth.filters.balance import SEPARATOR
from fusionvl.synth.scores import scores_folder
from fusionvl.synth.selection import chosen_by_shard
from fusionvl.synth.shard_files import Marks, are_ok, arrow, compute, read_table

LENGTH_EDGES = np.geomspace(1, 10_000, 41)
"""Between the bars of how long texts are, in characters."""

_COLUMNS = ("kind", "status", "reason", "image", "turns", "models", "prompt_hashes", "input_tokens", "output_tokens")


@dataclass
class TextLengths:
    """How long the questions and answers of a kind are.

    Attributes:
        turns: How many there are.
        questions: Characters of all questions.
        answers: Characters of all answers.
        longest: Characters of the longest answer.
    """

    turns: int = 0
    questions: int = 0
    answers: int = 0
    longest: int = 0


@dataclass
class RunStatistics:
    """What is in a run.

    Lengths and answers are of the chosen rows: those that the selection keeps, or all that are sound where nothing is
    selected yet.

    Attributes:
        rows: How many rows there are of each kind and status.
        chosen: Of each kind, how many are chosen.
        drawn: Of each kind, how many of the chosen have an image.
        questions: Of all sound rows.
        images: Of all sound rows.
        reasons: How many rows have each status that is not `ok`, and reason.
        lengths: Of each kind.
        bars: How many questions and answers there are between each two of `LENGTH_EDGES`.
        answers: Of each kind, how many rows hold each short answer; empty without scores of `balance`.
        models: How many rows each step and model made.
        prompts: How many rows each step and prompt made.
        tokens: Read and written by language models.
    """

    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    chosen: Counter[str] = field(default_factory=Counter)
    drawn: Counter[str] = field(default_factory=Counter)
    questions: int = 0
    images: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    lengths: dict[str, TextLengths] = field(default_factory=lambda: defaultdict(TextLengths))
    bars: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    answers: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    models: Counter[tuple[str, str]] = field(default_factory=Counter)
    prompts: Counter[tuple[str, str]] = field(default_factory=Counter)
    tokens: tuple[int, int] = (0, 0)

    @property
    def kinds(self) -> list[str]:
        """The kinds there are, in the order of their first rows."""
        return list(dict.fromkeys(kind for kind, _ in self.rows))

    def of_status(self, status: str) -> int:
        """How many rows have a status."""
        return sum(count for (_, each), count in self.rows.items() if each == status)


def count_run(folder: Path, *, selected: bool) -> RunStatistics:
    """Counts what is in a run.

    Args:
        folder: The run's.
        selected: Whether to go by its recorded selection; if not, every sound row is chosen.

    Raises:
        ValueError: If there are no finished rows, or other ones than the selection chose from.
    """
    counted = RunStatistics()
    for path, chosen in chosen_by_shard(folder, selected=selected):
        table = read_table(path, _COLUMNS)
        _count_rows(counted, table)
        _count_texts(counted, table.filter(chosen))
        _count_answers(counted, scores_folder(folder, "balance") / path.name, table, chosen)
    if not counted.rows:
        raise ValueError(f"{folder}: its finished shards hold no rows")
    return counted


def _count_rows(counted: RunStatistics, table: Any) -> None:
    kinds, statuses = table["kind"].to_pylist(), table["status"].to_pylist()
    counted.rows.update(zip(kinds, statuses, strict=True))
    marks = are_ok(table)
    wrong, ok = table.filter(~marks).select(["status", "reason"]), table.filter(marks)
    counted.reasons.update(tuple(row.values()) for row in wrong.to_pylist())
    counted.questions += len(ok["turns"].combine_chunks().flatten())
    counted.images += len(ok) - ok["image"].null_count
    for column, counts in (("models", counted.models), ("prompt_hashes", counted.prompts)):
        for same in table[column].value_counts().to_pylist():
            counts.update(dict.fromkeys(json.loads(same["values"]).items(), same["counts"]))
    read, written = (compute.sum(table[name]).as_py() or 0 for name in ("input_tokens", "output_tokens"))
    counted.tokens = counted.tokens[0] + read, counted.tokens[1] + written


def _count_texts(counted: RunStatistics, table: Any) -> None:
    counted.chosen.update(table["kind"].to_pylist())
    counted.drawn.update(table.filter(table["image"].is_valid())["kind"].to_pylist())
    turns = table["turns"].combine_chunks()
    said = {name: compute.utf8_length(turns.flatten().field(name)) for name in ("question", "answer")}
    for name, lengths in said.items():
        counted.bars[name] = counted.bars.get(name, 0) + np.histogram(lengths, LENGTH_EDGES)[0]
    kinds = table["kind"].take(compute.list_parent_indices(turns))
    sums = arrow.table({"kind": kinds, **said}).group_by("kind")
    for own in sums.aggregate(
        [("answer", "count"), ("question", "sum"), ("answer", "sum"), ("answer", "max")]
    ).to_pylist():
        lengths = counted.lengths[own["kind"]]
        lengths.turns += own["answer_count"]
        lengths.questions += own["question_sum"]
        lengths.answers += own["answer_sum"]
        lengths.longest = max(lengths.longest, own["answer_max"])


def _count_answers(counted: RunStatistics, scores: Path, table: Any, chosen: Marks) -> None:
    """Counts the short answers that the filter `balance` has named."""
    if not scores.exists():
        return
    is_ok = are_ok(table)
    names = read_table(scores, ["answers"])["answers"]
    if len(names) != is_ok.sum():
        return  # rows have come since
    kinds, own = table["kind"].filter(chosen).to_pylist(), names.filter(chosen[is_ok]).to_pylist()
    for kind, answers in zip(kinds, own, strict=True):
        counted.answers[kind].update(answers.split(SEPARATOR) if answers else ())
