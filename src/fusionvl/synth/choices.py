"""The options of a multiple-choice question, whether they are listed beside it or written into it.

Knows the two forms, and nothing of whether an answer is right.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fusionvl.synth.rows import SynthTurn

LETTERS = "ABCDEFGHIJ"

_OPTION_LINE = re.compile(r"^\s*\(?([A-J])[.):]\s+(.+?)\s*$", re.MULTILINE)
_LETTER_ANSWER = re.compile(r"^\(?([A-J])\)?(?:[.):]\s*(.*))?$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Choices:
    """What may be chosen, and what is.

    Attributes:
        options: The texts, without letters.
        stated: Number of the option that the row says is right; None if that is none of them.
        answered: Number of the option that the answer gives, by letter or by text; None if it gives none.
    """

    options: tuple[str, ...]
    stated: int | None
    answered: int | None


def choices_of(turn: SynthTurn) -> Choices | None:
    """The options of a turn; None for a question without."""
    options = turn.options if turn.options is not None else options_in(turn.question)
    if not options:
        return None if turn.options is None else Choices((), None, None)
    answered = chosen(options, turn.answer)
    stated = answered if turn.correct is None else chosen(options, turn.correct)
    return Choices(options, stated, answered)


def options_in(question: str) -> tuple[str, ...]:
    """The options written into a question as lines `A. ...`, `B. ...`, if there are at least two of them."""
    found = _OPTION_LINE.findall(question)
    in_order = [letter for letter, _ in found] == list(LETTERS[: len(found)])
    return tuple(text for _, text in found) if len(found) > 1 and in_order else ()


def with_choices(turn: SynthTurn, options: Sequence[str]) -> SynthTurn:
    """The turn with these options, in its question too; its answer stays."""
    beside = None if turn.options is None else tuple(options)
    return replace(turn, question=with_options(turn.question, options), options=beside)


def with_options(question: str, options: Sequence[str]) -> str:
    """A question with these options: in place of those written into it, or below it."""
    if not options_in(question):
        return f"{question}\n{listed(options)}"
    lines = list(_OPTION_LINE.finditer(question))
    return f"{question[: lines[0].start()].rstrip()}\n{listed(options)}{question[lines[-1].end() :]}"


def listed(options: Sequence[str]) -> str:
    """Options as lines `A. ...`, `B. ...`."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


def as_asked(turn: SynthTurn) -> str:
    """The question as a reader gets it: with its options, if they are not written into it."""
    if not turn.options or options_in(turn.question):
        return turn.question
    return with_options(turn.question, turn.options)


def chosen(options: tuple[str, ...], answer: str) -> int | None:
    """The number of the option that an answer names: by its text, its letter, or both if they agree."""
    texts = [_plain(option) for option in options]
    if _plain(answer) in texts:
        return texts.index(_plain(answer))
    match = _LETTER_ANSWER.match(answer.strip())
    if match is None or LETTERS.index(match[1]) >= len(options):
        return None
    number = LETTERS.index(match[1])
    return number if not match[2] or _plain(match[2]) == texts[number] else None


def _plain(text: str) -> str:
    return text.strip().rstrip(".").strip().casefold()
