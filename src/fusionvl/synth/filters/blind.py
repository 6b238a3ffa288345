"""The blind test: a question that a model answers without image and description does not teach seeing.

Yes-or-no questions are left out, a coin answers half of them; options are turned round between votes, so that a
favourite letter is no answer. Long answers cannot be guessed and are left out. Knows no backend.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from fusionvl.synth.filters.agreement import agrees, is_short
from fusionvl.synth.filters.asking import Ask, Model, ask_all, score_names, summed_up
from fusionvl.synth.filters.choices import Choices, as_asked, choices_of, with_options
from fusionvl.synth.filters.columns import Columns, as_columns
from fusionvl.synth.rows import Row, SynthTurn

_PREFIX = "blind"
BLIND_COLUMNS = ("blind_guessed", *score_names(_PREFIX))

_TASKS = (
    "Answer the question about a picture that you cannot see. Guess. Give only the answer.",
    "You cannot see the picture. What is the most likely answer? Reply with the answer alone.",
    "Without looking at the picture, reply to the question in a word or a short phrase.",
)
MOST_VOTES = len(_TASKS)


async def score_blind(rows: Sequence[Row], model: Model, *, votes: int = 3, parallel: int = 16) -> Columns:
    """Asks each turn's question without anything to look at.

    Args:
        rows: Any.
        model: A text model.
        votes: Requests for each turn, in different words.
        parallel: Most requests in flight.

    Returns:
        `blind_guessed`: of the turns that were asked about, the share that every vote got right; `blind_worst`,
        `_mean` (of the votes that were right), `_asked`, `_errors`.

    Raises:
        ValueError: If there are more votes than wordings, or the model answers nothing at all.
    """
    if not 1 <= votes <= MOST_VOTES:
        raise ValueError(f"blind votes must be from 1 to {MOST_VOTES}, got {votes}")
    asks = [ask for number, row in enumerate(rows) for ask in _asks(number, row, votes)]
    scored = []
    for verdicts in await ask_all(model, asks, rows=len(rows), parallel=parallel):
        shares = [share for verdict in verdicts.values() if (share := verdict.share) is not None]
        guessed = sum(share == 1 for share in shares) / len(shares) if shares else None
        scored.append({"blind_guessed": guessed, **summed_up(_PREFIX, verdicts)})
    return as_columns(BLIND_COLUMNS, scored)


def _asks(number: int, row: Row, votes: int) -> Iterator[Ask]:
    for index, turn in enumerate(row.turns):
        if not is_short(turn) or turn.answer.strip(" .").casefold() in ("yes", "no"):
            continue
        for vote in range(votes):
            yield _ask(number, index, _turned(turn, vote), _TASKS[vote])


def _ask(row: int, index: int, turn: SynthTurn, task: str) -> Ask:
    messages = [{"role": "system", "content": task}, {"role": "user", "content": as_asked(turn)}]
    return Ask(row, index, messages, lambda reply: agrees(turn, reply))


def _turned(turn: SynthTurn, vote: int) -> SynthTurn:
    """The turn with its options moved round by one place a vote."""
    choices = choices_of(turn)
    if choices is None or choices.stated is None:
        return turn
    return _with_first(turn, choices, vote % len(choices.options))


def _with_first(turn: SynthTurn, choices: Choices, first: int) -> SynthTurn:
    options = (*choices.options[first:], *choices.options[:first])
    right = choices.options[choices.stated or 0]
    question = with_options(turn.question, options)
    return replace(turn, question=question, options=options, answer=right, correct=right)
