"""Which rows a run makes, of which captions, and in which shard each stands: computed from the recipe, never stored.

The k-th row of a run is the same in every process. Kinds are spread evenly over shards. Captions are a text file with
one a line, or JSONL with the field `caption`, in any language; empty and repeated ones are left out and counted. Of
them only where lines begin is kept in memory, eight bytes a caption. Knows no steps, and of finished shards only
whether they are there.
"""

import json
import logging
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusionvl.data.permutation import hashed, permuted
from fusionvl.run_folder import RECORD, read_record
from fusionvl.synth.kinds import kind_named
from fusionvl.synth.rows import Row, row_id
from fusionvl.synth.shard_files import SHARD_FOLDER, is_settled, shard_path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Captions:
    """The captions of a file that are there to be used.

    Attributes:
        path: The file.
        starts: Where the line of each begins.
        empty: How many lines without a caption were left out.
        repeated: How many captions were left out because they stood there before.
    """

    path: Path
    starts: NDArray[np.int64]
    empty: int
    repeated: int

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> str:
        with self.path.open("rb") as file:
            file.seek(int(self.starts[index]))
            return _caption(file.readline(), self.path, f"byte {self.starts[index]}")


def open_captions(path: Path) -> Captions:
    """Find the captions of a file.

    Args:
        path: A `.txt` or `.jsonl` file in UTF-8.

    Raises:
        ValueError: When there is no such file, it is of another type, a line cannot be read (named by its number), or
            no caption is left.
    """
    if path.suffix not in (".txt", ".jsonl"):
        raise ValueError(f"{path}: captions are read from .txt (one a line) and .jsonl (field caption) files")
    if not path.is_file():
        raise ValueError(f"There is no file of captions {path}")
    starts, marks = _lines(path)
    filled = marks != 0
    _, first = np.unique(marks[filled], return_index=True)
    kept = starts[filled][np.sort(first)]
    captions = Captions(path, kept, empty=int((~filled).sum()), repeated=int(filled.sum()) - len(kept))
    if not len(captions):
        raise ValueError(f"{path} holds no caption: {captions.empty} empty lines")
    if captions.empty or captions.repeated:
        logger.warning(
            "%s: %d captions; left out: %d empty, %d repeated", path, len(kept), captions.empty, captions.repeated
        )
    return captions


def _lines(path: Path) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Where each line begins, and a hash of its caption; 0 for an empty one."""
    starts, marks, start = [], [], 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            caption = _caption(line, path, f"line {number}")
            starts.append(start)
            marks.append(hashed(caption) | 1 if caption else 0)
            start += len(line)
    return np.array(starts, dtype=np.int64), np.array(marks, dtype=np.uint64)


def _caption(line: bytes, path: Path, place: str) -> str:
    """The caption of a line, with single spaces and composed characters, so that equal ones are equal."""
    try:
        text = line.decode().removeprefix("\ufeff")
        if path.suffix == ".jsonl" and text.strip():
            text = json.loads(text)["caption"]
        return " ".join(unicodedata.normalize("NFC", text).split())
    except (KeyError, TypeError, ValueError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}, {place}: no caption can be read from it ({problem})") from error


@dataclass(frozen=True)
class Plan:
    """The rows of a run.

    Attributes:
        source: Names where captions come from; part of every id.
        split: Of procedural scenes.
        seed: Another one gives other rows.
        counts: How many rows of each kind.
        shard_size: About how many rows a shard holds.
        captions: What rows start from; None for procedural scenes.

    Raises:
        ValueError: When a kind is unknown, a count is below 1, or there is nothing to make.
    """

    source: str
    split: str
    seed: int
    counts: dict[str, int]
    shard_size: int
    captions: Captions | None = None

    def __post_init__(self) -> None:
        if not self.counts:
            raise ValueError("rows: name at least one kind with its number of rows, for instance SynthColor: 100")
        for name, count in self.counts.items():
            kind_named(name)
            if count < 1:
                raise ValueError(f"rows: {name} must be at least 1, not {count}; leave the kind out instead")
        if self.shard_size < 1:
            raise ValueError(f"shard_size must be at least 1, not {self.shard_size}")

    def __len__(self) -> int:
        return sum(self.counts.values())

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-len(self) // self.shard_size)

    def rows_in(self, shard: int) -> int:
        """How many rows a shard has."""
        return len(range(shard, len(self), self.shards))

    def rows(self, shard: int) -> Iterator[Row]:
        """The rows of a shard as they are before anything was made, in order."""
        ends = list(accumulate(self.counts.values()))
        names = list(self.counts)
        for position in range(shard, len(self), self.shards):
            which = bisect_right(ends, position)
            yield self._row(names[which], position - (ends[which - 1] if which else 0))

    def _row(self, kind: str, number: int) -> Row:
        """The row of a kind with this number; each kind takes captions in an order of its own."""
        caption, variant = "", number
        if self.captions is not None:
            variant, place = divmod(number, len(self.captions))
            order = permuted(np.array([place]), len(self.captions), f"captions/{self.seed}/{kind}")
            caption = self.captions[int(order[0])]
        made_of = row_id(self.source, caption, kind, f"{self.split}.{self.seed}.{variant}")
        return Row(id=made_of, kind=kind, caption=caption, split=self.split)


def what_is_missing(folder: Path) -> str | None:
    """What there is of a half-finished run: `N of M rows; K shards unfinished`. Reads no rows.

    A shard that was begun again, for its errors, is unfinished although its rows of before are there.

    Returns:
        None when the run is whole, or the folder has no `run.json` that could say so.
    """
    if not (folder / RECORD).is_file():
        return None
    settings = read_record(folder)["settings"]
    plan = Plan(*(settings[name] for name in ("source", "split", "seed", "rows", "shard_size")))
    shards = folder / SHARD_FOLDER
    unfinished = sum(not is_settled(shards, shard) for shard in range(plan.shards))
    if not unfinished:
        return None
    there = sum(plan.rows_in(shard) for shard in range(plan.shards) if shard_path(shards, shard).exists())
    return f"{there:,} of {len(plan):,} rows; {unfinished:,} shards unfinished"
