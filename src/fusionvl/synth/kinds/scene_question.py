"""A question about a scene with its exact answer, in every form a conversation may need it."""

from dataclasses import dataclass

from fusionvl.synth.choices import listed
from fusionvl.synth.rows import SynthTurn
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.wording import sentence

# The wording of LLaVA's data and of most benchmarks.
SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
OPTIONS = "ABCD"
_CLOSED = 1 / 3  # share of the questions for yes or no


@dataclass(frozen=True, slots=True)
class SceneQuestion:
    """A question about a picture.

    Attributes:
        text: The question.
        answer: A word or short phrase.
        full: The answer as a sentence, or several.
        wrong: Plausible wrong answers; empty for a question that has none.
    """

    text: str
    answer: str
    full: str
    wrong: tuple[str, ...] = ()

    def short(self) -> SynthTurn:
        """Answered in a word or phrase, and asking for that."""
        return SynthTurn(f"{self.text}\n{SHORT}", self.answer, correct=self.answer)

    def brief(self) -> SynthTurn:
        """The same without asking for it: of a kind whose answers are never longer."""
        return SynthTurn(self.text, self.answer, correct=self.answer)

    def long(self) -> SynthTurn:
        """Answered in a sentence."""
        return SynthTurn(self.text, self.full)

    def either(self, draws: Draws) -> SynthTurn:
        """Answered in a sentence half of the time."""
        return self.long() if draws.chance(0.5) else self.short()

    def choice(self, draws: Draws) -> SynthTurn:
        """With four options, one of them right, answered with its letter."""
        right = draws.integer(0, len(OPTIONS) - 1)
        options = draws.shuffled(self.wrong[: len(OPTIONS) - 1])
        options.insert(right, self.answer)
        text = f"{self.text}\n{listed(options)}\n{LETTER}"
        return SynthTurn(text, OPTIONS[right], tuple(options), OPTIONS[right])


def yes_no(text: str, truth: bool, statement: str, denial: str) -> SceneQuestion:
    """A question to be answered with yes or no, and what is the case in either."""
    return SceneQuestion(text, "yes" if truth else "no", sentence(f"Yes, {statement}" if truth else f"No, {denial}"))


def drawn(draws: Draws, questions: list[SceneQuestion], count: int) -> list[SceneQuestion]:
    """So many questions in random order, or all; of those for yes or no, which make up a third, half are yes."""
    order = draws.shuffled(questions)
    piles: dict[str, list[SceneQuestion]] = {"yes": [], "no": [], "": []}
    for question in order:
        piles[question.answer if question.answer in piles else ""].append(question)
    chosen: list[SceneQuestion] = []
    for _ in range(min(count, len(order))):
        wanted = ("yes" if draws.chance(0.5) else "no") if draws.chance(_CLOSED) else ""
        pile = piles[wanted] or piles[""] or piles["yes"] or piles["no"]
        chosen.append(pile.pop())
    return chosen
