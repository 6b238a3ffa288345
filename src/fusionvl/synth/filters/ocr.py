"""Reads the pictures of text kinds and compares what is read with the text that the row says is written there.

Comparison is by normalised edit distance, after case, spaces and punctuation are gone. The reader is RapidOCR with the
models that come inside its package: no network. It knows Latin and Chinese letters, so a row that states any others
gets no score. Knows no thresholds.
"""

import asyncio
import itertools
import re
import threading
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fusionvl.data.extras import import_extra
from fusionvl.synth.choices import choices_of
from fusionvl.synth.filters.filter import Filter, FilterModels, Scores, computed_by
from fusionvl.synth.filters.images import decoded
from fusionvl.synth.rows import Row, SynthTurn

OCR_COLUMNS = {"ocr_worst": float, "ocr_texts": float, "ocr_reason": str}
TEXT_KINDS = ("SynthText", "TextQA")
"""The kinds whose pictures are read."""

Reader = Callable[[Image.Image], list[str]]
"""From an image to its lines of text, from top to bottom."""

_QUOTED = re.compile(r'["“]([^"“”]+)["”]')
# In an answer only what is said to be written: '"BROT" is German for "bread"' quotes a word the picture lacks.
_WRITTEN = re.compile(
    r'(?<!not )\b(?:says?|reads?|saying|reading|written|writes?|displays?|labell?ed|spells?)\b[^"“.]{0,30}'
    r'["“]([^"“”]+)["”]',
    re.IGNORECASE,
)
_READING = re.compile(r"^(?:what (?:does .+ say|is written)|read the text|which text|what text)\b", re.IGNORECASE)
_READABLE = ("LATIN", "CJK", "FULLWIDTH")


def ocr_filter(models: FilterModels) -> Filter:
    """The filter `ocr`.

    Raises:
        ModuleNotFoundError: If RapidOCR or its runtime is not installed; with the command that installs them.
    """
    settings = computed_by("onnxruntime", "pillow", "rapidocr")
    return Filter("ocr", OCR_COLUMNS, partial(score_ocr, read=rapid_reader()), settings)


async def score_ocr(row: Row, folder: Path, read: Reader) -> Scores:
    """Compares what a row says is written with what is read.

    Args:
        row: One of another kind, one that states no text, or text in letters the reader does not know, or without an
            image that decodes gets no score (image checks see to the last).
        folder: The run's, which image paths are relative to.
        read: See `rapid_reader`.

    Returns:
        `ocr_worst`: of the stated texts, the least similarity to what is read, 0 to 1; `ocr_texts`: how many are
        stated; `ocr_reason`: the text that is least like anything read, and all that was read, unless all is found.
    """
    stated = stated_texts(row) if row.kind in TEXT_KINDS else []
    scores: Scores = {"ocr_worst": None, "ocr_texts": len(stated), "ocr_reason": None}
    if not all(map(_is_readable, stated)):
        return scores | {"ocr_reason": "states letters that the reader does not know"}
    image = decoded(row, folder) if stated else None
    if image is None:
        return scores
    lines = await asyncio.to_thread(read, image)
    found = {text: similarity_to_lines(text, lines) for text in stated}
    worst = min(found, key=lambda text: found[text])
    reason = None if found[worst] == 1 else f'states "{worst}", read "{" / ".join(lines)}"'
    return scores | {"ocr_worst": found[worst], "ocr_reason": reason}


def stated_texts(row: Row) -> list[str]:
    """The texts that a row says are written in its picture, each once, in order.

    All that its description quotes (its prompt asks for quotes around text and nothing else), what its answers say is
    written, and the answers to questions that ask to read.
    """
    texts = _QUOTED.findall(row.description)
    for turn in row.turns:
        texts += _stated_in(turn)
    return [text for text in dict.fromkeys(text.strip() for text in texts) if _plain(text)]


def _stated_in(turn: SynthTurn) -> list[str]:
    if choices_of(turn) is not None:
        return []
    quoted = _WRITTEN.findall(turn.answer)
    if turn.answer.strip().casefold().startswith("yes"):
        quoted += _WRITTEN.findall(turn.question)
    if _READING.match(turn.question) and not _QUOTED.search(turn.answer):
        quoted.append(turn.answer if turn.correct is None else turn.correct)
    return quoted


def similarity_to_lines(text: str, lines: Sequence[str]) -> float:
    """1 - the least normalised edit distance of a text from a run of lines read one after the other, 0 to 1."""
    wanted = _plain(text)
    runs = (lines[start:end] for start, end in itertools.combinations(range(len(lines) + 1), 2))
    return max((_similarity(wanted, _plain("".join(run))) for run in runs), default=0.0)


def _plain(text: str) -> str:
    """Letters and digits, without case."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))


def _similarity(one: str, other: str) -> float:
    longest = max(len(one), len(other))
    return 1 - edit_distance(one, other) / longest if longest else 1.0


def edit_distance(one: str, other: str) -> int:
    """How many letters must be put in, taken out or changed to make one text the other (Levenshtein)."""
    before = list(range(len(other) + 1))
    for number, letter in enumerate(one, start=1):
        row = [number]
        for place, known in enumerate(other, start=1):
            row.append(min(row[-1] + 1, before[place] + 1, before[place - 1] + (letter != known)))
        before = row
    return before[-1]


def _is_readable(text: str) -> bool:
    return all(unicodedata.name(letter, "").startswith(_READABLE) for letter in text if letter.isalpha())


def rapid_reader() -> Reader:
    """A reader by RapidOCR, on one thread.

    Raises:
        ModuleNotFoundError: If RapidOCR or its runtime is not installed; with the command that installs them.
    """
    import_extra("onnxruntime", extra="ocr", needed_for="Reading text in pictures")
    rapidocr = import_extra("rapidocr", extra="ocr", needed_for="Reading text in pictures")
    threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
    engine: Any = rapidocr.RapidOCR(params={"Global.log_level": "error", **threads})
    is_free = threading.Lock()

    def read(image: Image.Image) -> list[str]:
        pixels = np.ascontiguousarray(np.asarray(image)[..., ::-1])  # RapidOCR takes arrays as OpenCV orders colours
        with is_free:
            return list(engine(pixels).txts or ())

    return read
