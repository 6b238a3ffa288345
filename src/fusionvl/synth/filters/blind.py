"""The blind test: a question that a model answers without image and description does not teach seeing.

Yes-or-no questions are left out, a coin answers half of them; options are turned round between votes, so that a
favourite letter is no answer. Long answers cannot be guessed and are left out. Knows no backend.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fusionvl.synth.choices import as_asked, choices_of, with_options
from fusionvl.synth.filters.agreement import agrees, is_short
from fusionvl.synth.filters.asking import Ask, asking_filter, score_columns, shares_accepted, summed_up
from fusionvl.synth.filters.filter import Filter, FilterModels, Scores
from fusionvl.synth.rows import Row, SynthTurn
from fusionvl.synth.text_client import TextClient, message

BLIND_COLUMNS = {"blind_guessed": float} | score_columns("blind")

TASKS = (
    "Answer the question about a picture that you cannot see. Guess. Give only the answer.",
    "You cannot see the picture. What is the most likely answer? Reply with the answer alone.",
    "Without looking at the picture, reply to the question in a word or a short phrase.",
)


def blind_filter(models: FilterModels) -> Filter:
    """The filter `blind`.

    Raises:
        ValueError: If no model is given, an endpoint without a model's name, or more votes than wordings.
    """
    if models.text is None:
        raise ValueError("the filter 'blind' needs a text model: --text-model")
    if not 1 <= models.votes <= len(TASKS):
        raise ValueError(f"blind votes must be from 1 to {len(TASKS)}, got {models.votes}")
    return asking_filter("blind", BLIND_COLUMNS, score_blind, models.text, TASKS, votes=models.votes)


async def score_blind(row: Row, folder: Path, client: TextClient, votes: int) -> Scores:
    """Asks each turn's question without anything to look at.

    Args:
        row: Any.
        folder: Not looked at.
        client: Asks a text model.
        votes: Requests for each turn, in different words.

    Returns:
        `blind_guessed`: of the turns that were asked about, the share that every vote got right; `blind_worst`,
        `_mean` (of the votes that were right), `_asked`.

    Raises:
        RequestError: If a request got no answer.
        ValueError: If the model would answer no request at all.
    """
    shares = await shares_accepted(client, _asks(row, votes))
    guessed = sum(share == 1 for share in shares) / len(shares) if shares else None
    return {"blind_guessed": guessed, **summed_up("blind", shares)}


def _asks(row: Row, votes: int) -> Iterator[Ask]:
    for index, turn in enumerate(row.turns):
        if is_short(turn) and turn.answer.strip(" .").casefold() not in ("yes", "no"):
            for vote in range(votes):
                yield _ask(index, _turned(turn, vote), vote)


def _ask(index: int, turn: SynthTurn, vote: int) -> Ask:
    messages = (message("system", TASKS[vote]), message("user", as_asked(turn)))
    return Ask(index, messages, lambda reply: agrees(turn, reply))


def _turned(turn: SynthTurn, vote: int) -> SynthTurn:
    """The turn with its options moved round by one place a vote."""
    choices = choices_of(turn)
    if choices is None or choices.stated is None:
        return turn
    first = vote % len(choices.options)
    options = (*choices.options[first:], *choices.options[:first])
    right = choices.options[choices.stated]
    return replace(turn, question=with_options(turn.question, options), options=options, answer=right, correct=right)
