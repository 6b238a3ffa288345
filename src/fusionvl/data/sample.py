"""The one shape all data takes: a conversation about at most one image.

Readers produce samples, everything after them takes samples. Images stay references (a file, or encoded bytes); this
module neither opens nor decodes them, and knows no tensors, tokenizers or prompt formats.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

ImageRef: TypeAlias = Path | bytes
"""An image not yet decoded: the path of an image file, or the contents of one."""

Message: TypeAlias = dict[str, Any]
"""A chat message as the transformers chat templates take it: `{"role": ..., "content": [...]}`."""


class OverLongError(ValueError):
    """A sample is sound, but not even its first turn fits into a row."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer, as given: nothing is stripped or rewritten.

    Raises:
        ValueError: if either is empty or blank.
    """

    question: str
    answer: str

    def __post_init__(self) -> None:
        for name, text in (("question", self.question), ("answer", self.answer)):
            if not isinstance(text, str):
                raise ValueError(f"{name} must be text, got {type(text).__name__}")
            if not text.strip():
                raise ValueError(f"empty {name}")


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation about an image, or about none.

    Attributes:
        id: names the sample within its source.
        turns: questions and answers, in order; at least one.
        image: the image, which belongs to the first question; None for a conversation in text only.
        source: the data set it comes from, for counting and for error messages.

    Raises:
        ValueError: if a part is missing or of the wrong kind; the message names the sample.
    """

    id: str
    turns: tuple[Turn, ...]
    image: ImageRef | None = field(repr=False)
    source: str

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise ValueError(f"a sample's id must be non-empty text, got {self.id!r} (source {self.source!r})")
        name = f"sample {self.id!r}"
        if not isinstance(self.source, str) or not self.source:
            raise ValueError(f"{name}: source must be non-empty text, got {self.source!r}")
        if not isinstance(self.turns, tuple) or not all(isinstance(turn, Turn) for turn in self.turns):
            raise ValueError(f"{name}: turns must be a tuple of Turn")
        if not self.turns:
            raise ValueError(f"{name}: no turns; a sample needs at least one question with its answer")
        if self.image is not None and not isinstance(self.image, Path | bytes):
            kind = type(self.image).__name__
            raise ValueError(f"{name}: image must be a pathlib.Path, bytes or None, got {kind}")
        # Path("") is Path("."): what an empty file name in a record turns into.
        if self.image == b"" or self.image == Path():
            raise ValueError(f"{name}: empty image reference; use image=None for a sample without one")


def to_messages(sample: Sample) -> list[Message]:
    """Writes a sample as chat messages, the image standing before the first question.

    The image part is a place only (`{"type": "image"}`); the image itself travels beside the messages. For a prompt
    that is yet to be answered, leave off the last message: `to_messages(sample)[:-1]`.

    Returns:
        User and assistant messages in turn, two per question.
    """
    messages: list[Message] = []
    for index, turn in enumerate(sample.turns):
        question: list[dict[str, str]] = [{"type": "text", "text": turn.question}]
        if index == 0 and sample.image is not None:
            question.insert(0, {"type": "image"})
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    return messages
