"""The row: what the engine makes, one image with its questions and answers, and all that is known of its making.

A row is immutable; each step of its making returns a new one. Its id derives from what it is made of, and every seed
from its id, so a row is the same whoever makes it, whenever. Knows no files.
"""

import hashlib
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

Status = Literal["open", "ok", "error", "rejected"]
"""`open`: not yet finished. `error`: a step failed, trying again may help. `rejected`: what came back was no good."""


@dataclass(frozen=True, slots=True)
class SynthTurn:
    """One question with its answer.

    Attributes:
        question: As it is asked; a multiple choice lists its options here too.
        answer: As it is to be given.
        options: Those of a multiple choice, without letters.
        correct: The fact the answer must hold, where there is a short one: a letter, a number, a colour, a word.
    """

    question: str
    answer: str
    options: tuple[str, ...] | None = None
    correct: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        id: In hexadecimal; see `row_id`.
        kind: Name of its kind.
        caption: What it starts from; empty for a procedural scene.
        description: What the image shows, in detail.
        image: Path relative to the run folder.
        turns: Questions and answers, in order.
        status: See `Status`.
        reason: Why it is an error or rejected.
        attempts: Requests made so far, all steps together; repairs and retries count.
        seeds: Of each step.
        prompt_hashes: Name, version and hash of each text step's prompt.
        models: What carried out each step.
        finish_reason: Why the last text ended, as its backend said.
        input_tokens: Read by language models so far.
        output_tokens: Written by language models so far.
        truth: The facts of a procedural scene.
        split: `train` or `held-out`: which attribute combinations a procedural scene may hold.
    """

    id: str
    kind: str
    caption: str = ""
    description: str = ""
    image: str | None = None
    turns: tuple[SynthTurn, ...] = ()
    status: Status = "open"
    reason: str = ""
    attempts: int = 0
    seeds: dict[str, int] = field(default_factory=dict)
    prompt_hashes: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    finish_reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    truth: dict[str, Any] | None = None
    split: str = "train"

    def failed(self, reason: str) -> "Row":
        """The row as an error: a step could not be carried out."""
        return replace(self, status="error", reason=reason)

    def rejected(self, reason: str) -> "Row":
        """The row as rejected: what a step brought is no good."""
        return replace(self, status="rejected", reason=reason)

    def to_dict(self) -> dict[str, Any]:
        """Its fields as plain values."""
        return {name: getattr(self, name) for name in _FIELDS} | {"turns": [asdict(turn) for turn in self.turns]}


_FIELDS = tuple(entry.name for entry in fields(Row))


def row_from_dict(values: dict[str, Any]) -> Row:
    """A row from its fields as plain values.

    Raises:
        ValueError: When a field is unknown, or the id or kind is missing.
    """
    if not {"id", "kind"} <= values.keys() <= set(_FIELDS):
        raise ValueError(f"Not a row: id, kind and some of {sorted(_FIELDS)} are expected, not {sorted(values)}")
    return Row(**{**values, "turns": tuple(_turn(turn) for turn in values.get("turns", ()))})


def _turn(values: dict[str, Any]) -> SynthTurn:
    options = values.get("options")
    return SynthTurn(**{**values, "options": None if options is None else tuple(options)})


def row_id(source: str, caption: str, kind: str, variant: str) -> str:
    """The id of a row: 32 hexadecimal digits that derive from what it is made of.

    Args:
        source: Where the caption comes from.
        caption: The caption.
        kind: Name of the row's kind.
        variant: Tells rows of the same caption and kind apart.
    """
    return hashlib.sha256("|".join((source, caption, kind, variant)).encode()).hexdigest()[:32]


def seed_of(row: str, step: str, attempt: int = 0) -> int:
    """The seed of one step of a row: 31 bits, as every backend takes them.

    Args:
        row: Id of the row.
        step: Name of the step.
        attempt: How often the step was tried before with the same purpose.
    """
    digest = hashlib.sha256(f"{row}|{step}|{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
