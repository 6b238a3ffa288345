"""What all benchmarks share on the way from rows to questions: unique ids, prompts, readable errors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase

from fusionvl.eval.sources import Row, Source
from fusionvl.eval.task import Question

WORD = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


def loader(source: Source, read: Callable[[Row], Question]) -> Callable[[Path | None], Sequence[Question]]:
    """The `load` of a task: its source's rows, each made into a question, all with ids of their own."""

    def load(folder: Path | None) -> Sequence[Question]:
        return unique((read(row) for row in source.rows(folder)), str(folder or source.dataset))

    return load


def unique(questions: Iterable[Question], where: str) -> list[Question]:
    """All questions, in order.

    Raises:
        ValueError: When two have the same id, or there are none.
    """
    found: dict[str, Question] = {}
    duplicates: list[str] = []
    for question in questions:
        if question.id in found:
            duplicates.append(question.id)
        found[question.id] = question
    if duplicates:
        raise ValueError(
            f"{where}: {len(duplicates)} questions have the id of another, the first is {duplicates[0]!r}; "
            "are there files of several splits or versions in it?"
        )
    if not found:
        raise ValueError(f"{where}: there are no questions")
    return list(found.values())


def lettered(options: Iterable[object]) -> dict[str, str]:
    """Options under A, B, C and so on."""
    return {letter: str(option).strip() for letter, option in zip(ascii_uppercase, options, strict=False)}


def choice_prompt(question: str, options: Mapping[str, str], *, context: str = "", instruction: str = LETTER) -> str:
    """A multiple-choice question in LLaVA's wording: context, question, a line for each option, instruction."""
    lines = [context, question, *(f"{letter}. {text}" for letter, text in options.items()), instruction]
    return "\n".join(line for line in lines if line)


def one_of(value: object, allowed: Iterable[str], where: str) -> str:
    """The value as text, if it is one of those allowed.

    Raises:
        ValueError: When it is not.
    """
    known = list(allowed)
    text = str(value)
    if text not in known:
        raise ValueError(f"{where}: {text!r} is none of {', '.join(known)}")
    return text
