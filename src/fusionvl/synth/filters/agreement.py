"""Whether a reply says the same as the answer on record: options, yes and no, numbers, words.

Compares short answers only; whether two sentences mean the same is a question for a model (see `asking.py`). Knows
neither models nor rows beyond a turn.
"""

import re

from fusionvl.synth.choices import LETTERS, choices_of, chosen
from fusionvl.synth.rows import SynthTurn

SHORT_WORDS = 6
"""An answer of more words cannot be compared word by word."""

_COUNTED = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
NUMBERS = {word: number for number, word in enumerate(_COUNTED)} | {"no": 0, "none": 0}
"""Numbers in words."""

_FILLERS = frozenset(
    ("a", "an", "the", "is", "are", "it", "its", "there", "in", "on", "at", "of", "to", "and", "color", "colour")
)
# Words that leave no room: "in the top left corner" holds "the top" and is another place.
_TELLING = frozenset((
    "left", "right", "top", "bottom", "above", "below", "center", "centre", "middle", "up", "down",
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray", "grey",
))  # fmt: skip
_WORD = re.compile(r"[^\W_]+(?:\.\d+)?")


def is_short(turn: SynthTurn) -> bool:
    """Whether replies can be compared with the answer: an option, a few words, or a sentence whose fact is known."""
    return choices_of(turn) is not None or len(_fact(turn).split()) <= SHORT_WORDS


def _fact(turn: SynthTurn) -> str:
    return turn.answer if turn.correct is None else turn.correct


def agrees(turn: SynthTurn, reply: str) -> bool:
    """Whether a reply to a turn's question gives the turn's answer, or the fact that its answer holds.

    Args:
        turn: With a short answer, see `is_short`.
        reply: What a model said.
    """
    choices = choices_of(turn)
    if choices is not None:
        return choices.stated is not None and _choice_in(choices.options, reply) == choices.stated
    answer, said = _words(_fact(turn)), _words(reply)
    if answer and answer[0] in ("yes", "no") and len(answer) == 1:
        return next((word for word in said if word in ("yes", "no")), None) == answer[0]
    if len(answer) == 1 and (number := _number(answer[0])) is not None:
        return next((found for word in said if (found := _number(word)) is not None), None) == number
    return _TELLING & set(said) == _TELLING & set(answer) and _holds(_content(said), _content(answer))


def says_yes(reply: str) -> bool:
    """Whether the first clear word of a verdict is yes."""
    return next((word for word in _words(reply) if word in ("yes", "no")), "no") == "yes"


def _choice_in(options: tuple[str, ...], reply: str) -> int | None:
    """The option that a reply names first by letter or whole text, or the only one whose text it contains."""
    first_line = reply.strip().splitlines()[0] if reply.strip() else ""
    number = chosen(options, first_line)
    if number is not None:
        return number
    letter = re.match(r"\W*(?:(?:the )?(?:answer|option)\W+(?:is\W+)?)?\(?([A-J])\b[).:]", f"{first_line}.", re.I)
    if letter is not None and LETTERS.index(letter[1].upper()) < len(options):
        return LETTERS.index(letter[1].upper())
    named = [i for i, option in enumerate(options) if _holds(_words(reply), _words(option))]
    return named[0] if len(named) == 1 else None


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _content(words: list[str]) -> list[str]:
    return [word for word in words if word not in _FILLERS] or words


def _number(word: str) -> int | None:
    return int(word) if word.isdecimal() else NUMBERS.get(word)


def _holds(words: list[str], wanted: list[str]) -> bool:
    """Whether the wanted words stand in a row somewhere."""
    length = len(wanted)
    return bool(wanted) and any(words[at : at + length] == wanted for at in range(len(words) - length + 1))
