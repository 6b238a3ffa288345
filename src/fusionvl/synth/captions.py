"""The pool of captions: a text file with one caption a line, or JSONL with the field `caption`.

Only where lines begin is kept in memory, eight bytes a caption. Empty captions and repetitions are left out, and
counted. Captions may be in any language. Knows no kinds and no rows.
"""

import json
import logging
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusionvl.data.permutation import hashed

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
