"""Closed-book consistency: a model that reads the description, and sees no image, must come to the same answers.

Finds answers that the writing model made up. Long answers are shown to the model for a verdict. Knows no backend.
"""

from collections.abc import Iterator, Sequence

from fusionvl.synth.filters.agreement import agrees, is_short, says_yes
from fusionvl.synth.filters.asking import Ask, Message, Model, ask_all, score_names, summed_up
from fusionvl.synth.filters.choices import as_asked
from fusionvl.synth.filters.columns import Columns, as_columns
from fusionvl.synth.rows import Row, SynthTurn

CLOSED_BOOK_COLUMNS = score_names("closed_book")

# Votes differ by wording: a model without randomness would repeat itself.
_TASKS = (
    "Answer the question from the description alone. Give only the answer, as short as possible.",
    "You are given the description of a picture. Reply to the question in a word or a short phrase.",
    "Read the description, then answer the question about it. No explanation, only the answer.",
)
_VERDICTS = (
    "Does the description support the answer to the question? Reply with yes or no.",
    "Judge by the description: is the answer correct? Reply with yes or no.",
    "Check the answer against the description. Reply yes if all of it is right, no if anything is wrong.",
)
MOST_VOTES = len(_TASKS)


async def score_closed_book(rows: Sequence[Row], model: Model, *, votes: int = 3, parallel: int = 16) -> Columns:
    """Asks each turn's question with the row's description.

    Args:
        rows: Those without description are judged by their caption.
        model: A text model.
        votes: Requests for each turn, in different words.
        parallel: Most requests in flight.

    Returns:
        `closed_book_worst`: of the row's turns, the least share of votes that agree; `_mean`, `_asked`, `_errors`.

    Raises:
        ValueError: If there are more votes than wordings, or the model answers nothing at all.
    """
    if not 1 <= votes <= MOST_VOTES:
        raise ValueError(f"closed-book votes must be from 1 to {MOST_VOTES}, got {votes}")
    asks = [ask for number, row in enumerate(rows) for ask in _asks(number, row, votes)]
    verdicts = await ask_all(model, asks, rows=len(rows), parallel=parallel)
    return as_columns(CLOSED_BOOK_COLUMNS, (summed_up("closed_book", verdict) for verdict in verdicts))


def _asks(number: int, row: Row, votes: int) -> Iterator[Ask]:
    text = row.description or row.caption
    for index, turn in enumerate(row.turns):
        for vote in range(votes):
            yield _ask(number, index, text, turn, vote)


def _ask(row: int, index: int, text: str, turn: SynthTurn, vote: int) -> Ask:
    if is_short(turn):
        content = f"Description: {text}\n\nQuestion: {as_asked(turn)}"
        return Ask(row, index, _messages(_TASKS[vote], content), lambda reply: agrees(turn, reply))
    content = f"Description: {text}\n\nQuestion: {turn.question}\nAnswer: {turn.answer}"
    return Ask(row, index, _messages(_VERDICTS[vote], content), says_yes)


def _messages(task: str, content: str) -> list[Message]:
    return [{"role": "system", "content": task}, {"role": "user", "content": content}]
