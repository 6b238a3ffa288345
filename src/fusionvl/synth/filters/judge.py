"""The judge: a vision-language model that sees the image must come to the row's answers.

The only filter that notices an image which does not show what its description says. Images travel inside the
messages, as data URLs: the form of OpenAI-compatible endpoints, which `local_judge.py` takes too.
"""

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path

from fusionvl.synth.filters.agreement import agrees, is_short, says_yes
from fusionvl.synth.filters.asking import Ask, Message, Model, ask_all, score_names, summed_up
from fusionvl.synth.filters.choices import as_asked
from fusionvl.synth.filters.columns import Columns, as_columns
from fusionvl.synth.rows import Row, SynthTurn

JUDGE_COLUMNS = score_names("judge")

_VERDICT = "Look at the image. Is the answer to the question correct? Reply with yes or no."
_MEDIA_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}


async def score_judge(rows: Sequence[Row], folder: Path, model: Model, *, parallel: int = 8) -> Columns:
    """Asks each turn's question about the row's image.

    Args:
        rows: Those without an image, or with one that is no readable file, get no score; image checks see to them.
        folder: The run's, which image paths are relative to.
        model: A model that sees.
        parallel: Most requests in flight.

    Returns:
        `judge_worst`: 0 if the model comes to another answer in any turn, else 1; `_mean`, `_asked`, `_errors`.

    Raises:
        ValueError: If the model answers nothing at all.
    """
    asks = [ask for number, row in enumerate(rows) for ask in _asks(number, row, folder)]
    verdicts = await ask_all(model, asks, rows=len(rows), parallel=parallel)
    return as_columns(JUDGE_COLUMNS, (summed_up("judge", verdict) for verdict in verdicts))


def _asks(number: int, row: Row, folder: Path) -> Iterator[Ask]:
    if row.image is None or not (folder / row.image).is_file():
        return
    image = data_url(folder / row.image)
    for index, turn in enumerate(row.turns):
        yield _ask(number, index, turn, image)


def _ask(number: int, index: int, turn: SynthTurn, image: str) -> Ask:
    if is_short(turn):
        return Ask(number, index, seen(image, as_asked(turn)), lambda reply: agrees(turn, reply))
    return Ask(number, index, seen(image, f"Question: {turn.question}\nAnswer: {turn.answer}\n{_VERDICT}"), says_yes)


def seen(image: str, text: str) -> list[Message]:
    """A request about an image, given as data URL."""
    return [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": text}],
        }
    ]


def data_url(path: Path) -> str:
    """The contents of an image file as text.

    Raises:
        ValueError: If the file's ending names no known kind of image.
    """
    media_type = _MEDIA_TYPES.get(path.suffix.lower())
    if media_type is None:
        raise ValueError(f"{path}: an image for the judge ends in {', '.join(_MEDIA_TYPES)}")
    return f"data:{media_type};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
