"""A question with its exact answer, in every form a conversation may need it."""

from dataclasses import dataclass

from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.wording import sentence

_CLOSED = 1 / 3  # share of the questions for yes or no


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a picture.

    Attributes:
        topic: What it is about: `colour`, `count`, ...
        text: The question.
        answer: A word or short phrase.
        full: The answer as a sentence, or several.
        wrong: Plausible wrong answers; empty for a question that has none.
    """

    topic: str
    text: str
    answer: str
    full: str
    wrong: tuple[str, ...] = ()


def yes_no(topic: str, text: str, truth: bool, statement: str, denial: str) -> Question:
    """A question to be answered with yes or no, and what is the case in either."""
    full = f"Yes, {statement}" if truth else f"No, {denial}"
    return Question(topic, text, "yes" if truth else "no", sentence(full))


def phrased(draws: Draws, forms: tuple[str, ...], **words: object) -> str:
    """One of several ways to say the same."""
    return draws.one_of(forms).format(**words)


def drawn(draws: Draws, questions: list[Question], count: int) -> list[Question]:
    """So many questions in random order, or all; of those for yes or no, which make up a third, half are yes."""
    order = draws.shuffled(questions)
    piles: dict[str, list[Question]] = {"yes": [], "no": [], "": []}
    for question in order:
        piles[question.answer if question.answer in piles else ""].append(question)
    chosen: list[Question] = []
    for _ in range(min(count, len(order))):
        wanted = ("yes" if draws.chance(0.5) else "no") if draws.chance(_CLOSED) else ""
        pile = piles[wanted] or piles[""] or piles["yes"] or piles["no"]
        chosen.append(pile.pop())
    return chosen
