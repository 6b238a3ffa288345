"""Closed-book consistency: a model that reads the description, and sees no image, must come to the same answers.

Finds answers that the writing model made up. Long answers are shown to the model for a verdict. Knows no backend.
"""

from collections.abc import Iterator
from pathlib import Path

from fusionvl.synth.choices import as_asked
from fusionvl.synth.filters.agreement import agrees, is_short, says_yes
from fusionvl.synth.filters.asking import Ask, asking_filter, score_columns, shares_accepted, summed_up
from fusionvl.synth.filters.filter import Filter, FilterModels, Scores
from fusionvl.synth.rows import Row, SynthTurn
from fusionvl.synth.text_client import TextClient, message

CLOSED_BOOK_COLUMNS = score_columns("closed_book")

# Votes differ by wording: a model without randomness would repeat itself.
TASKS = (
    "Answer the question from the description alone. Give only the answer, as short as possible.",
    "You are given the description of a picture. Reply to the question in a word or a short phrase.",
    "Read the description, then answer the question about it. No explanation, only the answer.",
)
VERDICTS = (
    "Does the description support the answer to the question? Reply with yes or no.",
    "Judge by the description: is the answer correct? Reply with yes or no.",
    "Check the answer against the description. Reply yes if all of it is right, no if anything is wrong.",
)


def closed_book_filter(models: FilterModels) -> Filter:
    """The filter `closed-book`.

    Raises:
        ValueError: If no model is given, an endpoint without a model's name, or more votes than wordings.
    """
    if models.text is None:
        raise ValueError("the filter 'closed-book' needs a text model: --text-model")
    if not 1 <= models.votes <= len(TASKS):
        raise ValueError(f"closed-book votes must be from 1 to {len(TASKS)}, got {models.votes}")
    return asking_filter(
        "closed-book", CLOSED_BOOK_COLUMNS, score_closed_book, models.text, (TASKS, VERDICTS), votes=models.votes
    )


async def score_closed_book(row: Row, folder: Path, client: TextClient, votes: int) -> Scores:
    """Asks each turn's question with the row's description, or its caption where it has none.

    Args:
        row: Any.
        folder: Not looked at.
        client: Asks a text model.
        votes: Requests for each turn, in different words.

    Returns:
        `closed_book_worst`: of the row's turns, the least share of votes that agree; `_mean`, `_asked`.

    Raises:
        RequestError: If a request got no answer.
        ValueError: If the model would answer no request at all.
    """
    return summed_up("closed_book", await shares_accepted(client, _asks(row, votes)))


def _asks(row: Row, votes: int) -> Iterator[Ask]:
    text = row.description or row.caption
    for index, turn in enumerate(row.turns):
        for vote in range(votes):
            yield _ask(index, text, turn, vote)


def _ask(index: int, text: str, turn: SynthTurn, vote: int) -> Ask:
    if is_short(turn):
        content = f"Description: {text}\n\nQuestion: {as_asked(turn)}"
        messages = (message("system", TASKS[vote]), message("user", content))
        return Ask(index, messages, lambda reply: agrees(turn, reply))
    content = f"Description: {text}\n\nQuestion: {turn.question}\nAnswer: {turn.answer}"
    return Ask(index, (message("system", VERDICTS[vote]), message("user", content)), says_yes)
