"""Points for one answer, by the definitions that the benchmarks were published with.

Each function takes the model's words and the reference and returns a `Verdict`. Knows no benchmark, file or model.
"""

from collections.abc import Mapping, Sequence

from fusionvl.eval.answer_parsing import parse_choice, parse_yes_no
from fusionvl.eval.task import Verdict
from fusionvl.eval.vqa_normalisation import normalise_vqa

ANLS_THRESHOLD = 0.5
RELAXED_TOLERANCE = 0.05
_EMPTY = Verdict(None, 0.0, "empty answer")


def score_choice(answer: str, reference: str, options: Mapping[str, str]) -> Verdict:
    """1 for the right letter; see `parse_choice` for how a letter is understood."""
    parsed = parse_choice(answer, options)
    return Verdict(parsed.value, float(parsed.value == reference.upper()), parsed.reason)


def score_yes_no(answer: str, reference: str) -> Verdict:
    """1 for the right one of yes and no; see `parse_yes_no`."""
    parsed = parse_yes_no(answer)
    return Verdict(parsed.value, float(parsed.value == reference.casefold()), parsed.reason)


def score_identical(answer: str, reference: str) -> Verdict:
    """1 when the answer is the reference, letter by letter."""
    return Verdict(answer, float(answer == reference)) if answer.strip() else _EMPTY


def score_exact(answer: str, references: Sequence[str]) -> Verdict:
    """1 when the answer equals a reference, but for case, blanks and one final full stop."""
    if not answer.strip():
        return _EMPTY
    said = _plain(answer)
    return Verdict(said, float(said in {_plain(reference) for reference in references}))


def score_contains(answer: str, references: Sequence[str], *, formula: bool = False) -> Verdict:
    """OCRBench's score: 1 when a reference stands in the answer, but for case.

    Args:
        answer: The model's words.
        references: What may stand in them.
        formula: Whether it is a formula, in which case counts and blanks do not.
    """
    if not answer.strip():
        return _EMPTY
    said = _written(answer, formula)
    return Verdict(said, float(any(_written(reference, formula) in said for reference in references)))


def score_vqa(answer: str, references: Sequence[str]) -> Verdict:
    """VQA soft accuracy: the mean, over leaving each person out, of min(n / 3, 1), n others having said the same.

    Both sides are brought to one form by `normalise_vqa`. With a single reference there is nobody to leave out, and an
    equal answer has 1.
    """
    if not answer.strip():
        return _EMPTY
    said = normalise_vqa(answer)
    agrees = [normalise_vqa(reference) == said for reference in references]
    if len(agrees) == 1:
        return Verdict(said, float(agrees[0]))
    agreeing = sum(agrees)
    return Verdict(said, sum(min((agreeing - own) / 3, 1.0) for own in agrees) / len(agrees))


def score_anls(answer: str, references: Sequence[str]) -> Verdict:
    """Average normalised Levenshtein similarity of one answer: 1 - distance / longer length, below 0.5 it is 0.

    Case and runs of blanks do not count, and the best reference does. As the challenge's script has it, a similarity
    of exactly 0.5 counts and the lengths are those before blanks are run together.
    """
    if not answer.strip():
        return _EMPTY
    said = " ".join(answer.lower().split())
    similarity = max(_similarity(answer, said, reference) for reference in references)
    return Verdict(said, similarity if similarity >= ANLS_THRESHOLD else 0.0)


def score_relaxed(answer: str, references: Sequence[str]) -> Verdict:
    """ChartQA's relaxed accuracy: numbers within 5 % of the reference, everything else equal but for case.

    `12%` is 0.12. A reference of zero has no 5 % and is compared as text, as in the published script.
    """
    said = answer.strip()
    if not said:
        return _EMPTY
    return Verdict(said, float(any(_relaxed(said, reference.strip()) for reference in references)))


def levenshtein(first: str, second: str) -> int:
    """The fewest insertions, deletions and replacements that turn one text into the other."""
    if len(first) < len(second):
        first, second = second, first
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


def _written(text: str, formula: bool) -> str:
    text = text.strip().replace("\n", " ")
    return text.replace(" ", "") if formula else text.lower()


def _similarity(answer: str, said: str, reference: str) -> float:
    distance = levenshtein(" ".join(reference.lower().split()), said)
    return 1.0 - distance / max(len(answer), len(reference))


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
