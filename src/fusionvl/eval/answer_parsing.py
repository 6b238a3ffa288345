"""What a model's words mean: the letter of an option, yes or no. Understood or not, never guessed.

An answer that fits two readings has none. Knows no benchmark and gives no points.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

_EDGES = " .,:;!?()[]{}*\"'`。、"
_STRAIGHT_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})

_BRACKETED = re.compile(r"[(\[]\s*([A-Za-z])\s*[)\]]")
_LEADING = re.compile(
    r"^[*\"'`\s]*(?:[(\[]\s*([A-Za-z])\s*[)\]]"  # (B) cat
    r"|([A-Za-z])[*\"'`]*[ \t]*\n"  # a line of its own
    r"|([A-Z])\s*[).:,、](?![A-Za-z]\.)"  # B. cat, but not B.C.
    r"|([a-z])\s*[).:](?=\s|$))"  # b. cat, but not i.e.
)
_LISTED = re.compile(r"(?:^|\s)(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Z])\s*[).:](?=\s)|(?:and|or|,)?\s*([A-Z])\W*$)")
_LETTER = r"(?:[(\[]\s*([A-Za-z])\s*[)\]]|[*\"'`]*([A-Z])(?![A-Za-z']))"
_ANNOUNCED = (
    re.compile(rf"(?:(?i:\banswer)|答案)\s*(?i:\bis\b|应为|应该是|是|为)?\s*:?\s*(?i:option\s+)?{_LETTER}"),
    re.compile(
        rf"(?:(?i:\boption|\bchoice)|选项|选择|选)\s*(?i:\bis\b|是|为)?\s*:?\s*{_LETTER}"
        r"(?!\W*\s(?i:is|are|was)\s+(?i:not|wrong|incorrect|false)\b)"
    ),
)
_STANDING = re.compile(r"(?<![A-Za-z'])([A-Z])(?![A-Za-z'])")
_ARTICLE = re.compile(r"(?<![A-Za-z'])A(?=\s+(?!and\b|or\b|is\b)[a-z])")  # "A cat" names no option
_DENIALS = ("not ", "not a ", "not an ", "not the ")
_LETTER_DENIALS = ("not ", "nor ", "neither ", "not be ", "cannot be ", "can't be ", "isn't ", "than ", "instead of ")


@dataclass(frozen=True)
class Parsed:
    """What was understood.

    Attributes:
        value: A letter, `yes`, `no`; None where nothing could be understood.
        reason: Why not; empty otherwise.
    """

    value: str | None
    reason: str = ""


def parse_yes_no(answer: str) -> Parsed:
    """Yes or no: the first word if it stands apart ("Yes, there is"), else the only one of the two in the answer."""
    said = answer.casefold()
    first = re.match(r"\W*(yes|no)\b\s*(?:[^\w\s]|\n|$)", said)
    if first:
        return Parsed(first[1])
    found = set(re.findall(r"\b(yes|no)\b", said))
    if len(found) == 1:
        return Parsed(found.pop())
    if found:
        return Parsed(None, "both yes and no")
    return Parsed(None, "neither yes nor no" if said.strip() else "empty answer")


def parse_choice(answer: str, options: Mapping[str, str]) -> Parsed:
    """The letter of an option.

    In this order: the letter alone; an option's words alone; a letter that leads ("B. cat"); one that is announced
    ("the answer is B"); one in brackets; an option's words within the answer; one capital letter that stands alone.
    The first form that is found decides; when it names two options, the answer is ambiguous.

    Args:
        answer: The model's words.
        options: Letter -> the option's words ("" where the question alone holds them).
    """
    if not answer.strip():
        return Parsed(None, "empty answer")
    said = unicodedata.normalize("NFKC", answer).translate(_STRAIGHT_QUOTES).strip()
    words = {letter.upper(): _bare(text) for letter, text in options.items()}
    alone = said.strip(_EDGES)
    if len(alone) == 1 and alone.isascii() and alone.isalpha():
        named = {alone.upper()}
        return Parsed(*named) if named <= words.keys() else Parsed(None, f"{alone} is not an option")
    for named in (
        {letter for letter, text in words.items() if text and text == _bare(said)},
        _leading(said),
        *(_letters(pattern, said) for pattern in _ANNOUNCED),
        _letters(_BRACKETED, said),
        _named_in_words(_bare(said), words),
        _standing(said),
    ):
        named &= words.keys()
        if len(named) == 1:
            return Parsed(*named)
        if named:
            return Parsed(None, f"names several options: {', '.join(sorted(named))}")
    return Parsed(None, "names no option")


def _bare(text: str) -> str:
    """Lower case, blanks run together, no marks at the ends; a sign or a unit is part of the words."""
    text = unicodedata.normalize("NFKC", text).translate(_STRAIGHT_QUOTES)
    return " ".join(text.casefold().split()).strip(_EDGES)


def _leading(said: str) -> set[str]:
    """The letter an answer begins with; with the others, when it goes through them one after the other."""
    match = _LEADING.match(said)
    return _group_letters(match) | _letters(_LISTED, said[match.end() :]) if match else set()


def _letters(pattern: re.Pattern[str], said: str) -> set[str]:
    return set().union(*(_group_letters(match) for match in pattern.finditer(said)))


def _group_letters(match: re.Match[str]) -> set[str]:
    return {letter.upper() for letter in match.groups() if letter}


def _standing(said: str) -> set[str]:
    """Letters that stand alone and are not denied. An A that may be an article counts beside another letter only."""
    articles = {match.start() for match in _ARTICLE.finditer(said)}
    found = list(_STANDING.finditer(said))
    if len(articles) == len(found):
        return set()
    return {match[1] for match in found if not said[: match.start()].casefold().endswith(_LETTER_DENIALS)}


def _named_in_words(said: str, words: Mapping[str, str]) -> set[str]:
    places = {letter: _places(text, said) for letter, text in words.items() if text}
    # "dark red" also holds "red": only words outside every longer option's count.
    return {
        letter
        for letter, spans in places.items()
        if any(not _is_part_of_another(span, letter, places) for span in spans)
    }


def _places(text: str, said: str) -> list[tuple[int, int]]:
    """Where a text stands in another as words of its own, "5" not in "2.5", and is not denied."""
    start = r"(?<![a-z0-9-])(?<!\d[.,])" if text[0].isascii() else ""
    end = r"(?![a-z0-9-])(?![.,]\d)" if text[-1].isascii() else ""
    found = re.finditer(start + re.escape(text) + end, said)
    return [match.span() for match in found if not said[: match.start()].endswith(_DENIALS)]


def _is_part_of_another(span: tuple[int, int], letter: str, places: Mapping[str, list[tuple[int, int]]]) -> bool:
    return any(
        start <= span[0] and span[1] <= end and end - start > span[1] - span[0]
        for other, spans in places.items()
        if other != letter
        for start, end in spans
    )
