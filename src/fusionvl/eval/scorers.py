"""Points for one answer. An answer that fits two readings, or none, is not understood: nothing is guessed.

Each function takes the model's words and the reference and returns a `Mark`. Knows no test, file or model; tests
compare what lmms-eval has, too, with its functions.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from string import ascii_uppercase

from fusionvl.eval.task import Mark

ANLS_THRESHOLD = 0.5
RELAXED_TOLERANCE = 0.05
LETTER = "Answer with the option's letter from the given choices directly."
WORD = "Answer the question using a single word or phrase."
_EMPTY = Mark(None, 0.0, "empty answer")
_LETTER = re.compile(r"(?:.*\banswer(?: is)?:?)?[\s(\[]*([A-Z])\s*(?:[)\].:]+(?=\s|$)|$)", re.IGNORECASE)
"""Alone, before a mark, or announced; not before other words, as an article is."""


def lettered(options: Iterable[object]) -> dict[str, str]:
    """Options under A, B, C and so on."""
    return {letter: str(option).strip() for letter, option in zip(ascii_uppercase, options, strict=False)}


def score_identical(answer: str, reference: str) -> Mark:
    """1 when the answer is the reference, letter by letter."""
    return Mark(answer, float(answer == reference)) if answer.strip() else _EMPTY


def score_exact(answer: str, references: Sequence[str]) -> Mark:
    """1 when the answer equals a reference, but for case, blanks and one final full stop."""
    if not answer.strip():
        return _EMPTY
    said = _plain(answer)
    return Mark(said, float(said in {_plain(reference) for reference in references}))


def score_choice(answer: str, reference: str, options: Mapping[str, str]) -> Mark:
    """1 for the right letter (`B`, `(b)`, `B. cat`, `The answer is B`), or an option's words alone.

    Args:
        answer: The model's words.
        reference: The right letter.
        options: Letter -> the option's words.
    """
    if not answer.strip():
        return _EMPTY
    letter = _LETTER.match(answer)
    named = {name for name, text in options.items() if _plain(text) == _plain(answer)}
    named = named or ({letter[1].upper()} & options.keys() if letter else set())
    if len(named) != 1:
        return Mark(None, 0.0, "names several options" if named else "names no option")
    [understood] = named
    return Mark(understood, float(understood == reference))


def score_yes_no(answer: str, reference: str) -> Mark:
    """1 for the right one of yes and no, which must be the first word or the only one of the two."""
    said = re.findall(r"\w+", answer.casefold())
    found = set(said[:1]) & {"yes", "no"} or set(said) & {"yes", "no"}
    if len(found) != 1:
        return Mark(None, 0.0, "both yes and no" if found else "neither yes nor no") if said else _EMPTY
    [word] = found
    return Mark(word, float(word == reference))


def score_anls(answer: str, references: Sequence[str]) -> Mark:
    """Average normalised Levenshtein similarity of one answer: 1 - distance / longer length, below 0.5 it is 0.

    Case and runs of blanks do not count, and the best reference does. As the challenge's script has it, a similarity
    of exactly 0.5 counts and the lengths are those before blanks are run together.
    """
    if not answer.strip():
        return _EMPTY
    said = " ".join(answer.lower().split())
    distances = {reference: levenshtein(" ".join(reference.lower().split()), said) for reference in references}
    similarity = max(1 - distance / max(len(answer), len(reference)) for reference, distance in distances.items())
    return Mark(said, similarity if similarity >= ANLS_THRESHOLD else 0.0)


def score_relaxed(answer: str, references: Sequence[str]) -> Mark:
    """ChartQA's relaxed accuracy: numbers within 5 % of the reference, everything else equal but for case.

    `12%` is 0.12. A reference of zero has no 5 % and is compared as text, as in the published script.
    """
    said = answer.strip()
    if not said:
        return _EMPTY
    return Mark(said, float(any(_relaxed(said, reference.strip()) for reference in references)))


def levenshtein(first: str, second: str) -> int:
    """The fewest insertions, deletions and replacements that turn one text into the other."""
    previous = list(range(len(second) + 1))
    for row, letter in enumerate(first, start=1):
        current = [row]
        for column, other in enumerate(second, start=1):
            current.append(
                min(previous[column] + 1, current[column - 1] + 1, previous[column - 1] + (letter != other))
            )
        previous = current
    return previous[-1]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".")


def _relaxed(answer: str, reference: str) -> bool:
    said, wanted = _number(answer), _number(reference)
    if said is not None and wanted:
        return abs(said - wanted) / abs(wanted) <= RELAXED_TOLERANCE
    return answer.lower() == reference.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
