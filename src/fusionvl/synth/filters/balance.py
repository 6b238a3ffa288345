"""What a row asks and answers, as names to count, so that a selection can cap what is too frequent.

Which rows go is not decided here: it depends on what the other filters leave (`selection.py`).
"""

import re
from pathlib import Path

from fusionvl.synth.choices import LETTERS, choices_of
from fusionvl.synth.filters.agreement import SHORT_WORDS
from fusionvl.synth.filters.filter import Scores
from fusionvl.synth.filters.rules import answer_text
from fusionvl.synth.rows import Row, SynthTurn

BALANCE_COLUMNS = {"answers": str, "letters": str, "templates": str}

SEPARATOR = "\n"
"""Between the names of a row's turns."""

_OPENING = 4  # words of a question that tell its form


def score_balance(row: Row, folder: Path) -> Scores:
    """Names what a row's turns hold.

    Returns:
        `answers`: the short answers; `letters`: the right letters of multiple choices, with the number of options, as
        `B of 4`; `templates`: the first words of the questions. Each is a text with a line a turn, or None if no turn
        has one.
    """
    return {
        "answers": _lines([_answer(turn) for turn in row.turns]),
        "letters": _lines([_letter(turn) for turn in row.turns]),
        "templates": _lines([_template(turn) for turn in row.turns]),
    }


def _lines(names: list[str | None]) -> str | None:
    return SEPARATOR.join(dict.fromkeys(name for name in names if name)) or None


def _answer(turn: SynthTurn) -> str | None:
    answer = answer_text(turn) if turn.correct is None or choices_of(turn) else turn.correct
    words = answer.casefold().strip(" .!").split()
    return " ".join(words) if 0 < len(words) <= SHORT_WORDS else None


def _letter(turn: SynthTurn) -> str | None:
    choices = choices_of(turn)
    if choices is None or choices.stated is None:
        return None
    return f"{LETTERS[choices.stated]} of {len(choices.options)}"


def _template(turn: SynthTurn) -> str:
    return " ".join(re.findall(r"[\w']+", turn.question.casefold())[:_OPENING])
