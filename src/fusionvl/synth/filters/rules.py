"""Rules on texts: faults that can be seen without a model and without the image.

Each column `rule_NAME` holds how many turns of a row break the rule. English rules; knows no thresholds.
"""

import re
from collections.abc import Callable
from pathlib import Path

from fusionvl.synth.choices import choices_of
from fusionvl.synth.filters.agreement import NUMBERS, agrees
from fusionvl.synth.filters.filter import Scores
from fusionvl.synth.rows import Row, SynthTurn

_LEAK = re.compile(
    r"\b(?:the|this|that|your|given|provided|above|following)\s+(?:\w+\s+)?(?:caption|description|prompt|passage)\b"
    r"|\b(?:caption|description|prompt)\s+(?:says?|states?|mentions?|describes?|tells?|indicates?)\b"
    r"|\bas\s+(?:described|mentioned|stated)\b(?!\s+on\b)"
    r"|\bthe\s+text\s+(?:above|given|provided)\b",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\bas an ai\b|\blanguage model\b|\bi(?:'m| am) (?:sorry|unable)\b|\bi (?:can(?:no|')t|do not|don't) "
    r"(?:see|answer|view|tell|determine|have access)\b|\b(?:cannot|can't|could not) be (?:determined|answered)\b"
    r"|\bnot (?:mentioned|specified|stated|provided)\b|\bno image (?:was )?(?:provided|given)\b",
    re.IGNORECASE,
)
_MARKER = re.compile(r"<image>|<\|[^|>\s]+\|>|\[/?INST\]|</?s>|\{\w+\}")

_COUNT_QUESTION = re.compile(r"^\W*(?:how many|count (?:the|all)|what is the (?:total )?number of)\b", re.IGNORECASE)
_COLOUR_QUESTION = re.compile(r"^\W*(?:what|which) colou?r\b|\bwhat is the colou?r of\b", re.IGNORECASE)
_COLOURS = re.compile(
    r"\b(?:red|orange|yellow|green|blue|purple|violet|pink|brown|black|white|gr[ae]y|beige|cream|turquoise|teal|cyan"
    r"|magenta|maroon|navy|gold|golden|silver|bronze|tan|lavender|olive|crimson|scarlet|indigo|ivory|coral|khaki"
    r"|transparent|multicolou?red)(?:ish)?\b",
    re.IGNORECASE,
)
_NUMBER_WORDS = [*NUMBERS, "single"]
_INTEGER = re.compile(rf"(?<![\d.,])\d+(?![.,]?\d)|\b(?:{'|'.join(_NUMBER_WORDS)})\b", re.IGNORECASE)
_FRACTION = re.compile(r"\d+[.,]\d+|\b(?:half|several|many|some|a few|about|around|roughly|dozens?)\b", re.IGNORECASE)
_A_PHRASE = 4  # words; a longer answer is a sentence


def score_rules(row: Row, folder: Path) -> Scores:
    """Counts the turns of a row that break each rule, and measures the longest texts.

    Returns:
        `rule_*` as named in `RULES`; `rule_repeated` for a question asked again within its row; `question_characters`
        and `answer_characters` of the longest.
    """
    scores: Scores = {f"rule_{name}": sum(map(breaks, row.turns)) for name, breaks in RULES.items()}
    scores["rule_turns"] = int(not row.turns)
    scores["rule_repeated"] = len(row.turns) - len({turn.question.strip().casefold() for turn in row.turns})
    scores["question_characters"] = max((len(turn.question) for turn in row.turns), default=0)
    scores["answer_characters"] = max((len(turn.answer) for turn in row.turns), default=0)
    return scores


def _empty(turn: SynthTurn) -> bool:
    return not turn.question.strip() or not turn.answer.strip()


def _leakage(turn: SynthTurn) -> bool:
    """The text that the row was written from is spoken of, though a reader has only the image."""
    return any(_LEAK.search(text) for text in (turn.question, turn.answer))


def _refusal(turn: SynthTurn) -> bool:
    return bool(_REFUSAL.search(turn.answer))


def _marker(turn: SynthTurn) -> bool:
    """Tokens of chat templates, or a prompt's placeholder that was never filled in."""
    return any(_MARKER.search(text) for text in (turn.question, turn.answer))


def _options(turn: SynthTurn) -> bool:
    """Fewer than two options, or two that say the same, or an empty one."""
    choices = choices_of(turn)
    if choices is None:
        return False
    texts = {option.strip().casefold() for option in choices.options}
    return len(choices.options) < 2 or len(texts) < len(choices.options) or "" in texts


def _not_an_option(turn: SynthTurn) -> bool:
    """The answer is none of the options, or not the one that is said to be right."""
    choices = choices_of(turn)
    return choices is not None and (choices.answered is None or choices.answered != choices.stated)


def _count(turn: SynthTurn) -> bool:
    """A question for a number that is not answered with a whole one."""
    if not _COUNT_QUESTION.search(turn.question):
        return False
    answer = answer_text(turn)
    if len(answer.split()) > _A_PHRASE:
        return not _INTEGER.search(answer) and not re.search(r"\b(?:an?|only|not any)\b", answer, re.IGNORECASE)
    return bool(_FRACTION.search(answer)) or not _INTEGER.search(answer)


def _colour(turn: SynthTurn) -> bool:
    """A question for a colour that is answered without naming one."""
    return bool(_COLOUR_QUESTION.search(turn.question)) and not _COLOURS.search(answer_text(turn))


def _fact(turn: SynthTurn) -> bool:
    """The answer does not hold the fact it is to hold."""
    return turn.correct is not None and choices_of(turn) is None and not agrees(turn, turn.answer)


def answer_text(turn: SynthTurn) -> str:
    """The answer in words: an option's text where the answer is its letter."""
    choices = choices_of(turn)
    if choices is None or choices.answered is None:
        return turn.answer
    return choices.options[choices.answered]


RULES: dict[str, Callable[[SynthTurn], bool]] = {
    "empty": _empty,
    "leakage": _leakage,
    "refusal": _refusal,
    "marker": _marker,
    "options": _options,
    "not_an_option": _not_an_option,
    "count": _count,
    "colour": _colour,
    "fact": _fact,
}
"""What may be wrong with a turn, by name."""

FAULT_COLUMNS = (*(f"rule_{name}" for name in RULES), "rule_turns", "rule_repeated")
"""The columns that are 0 for a row without fault."""

RULE_COLUMNS = dict.fromkeys((*FAULT_COLUMNS, "question_characters", "answer_characters"), float)
"""All columns of this filter."""
