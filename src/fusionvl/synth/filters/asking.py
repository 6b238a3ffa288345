"""The filters that ask a model about each turn of a row, and compare its replies with the answers on record.

* `closed-book`: a model that reads the description and sees no image must come to the same answers. Finds answers that
  the writing model made up.
* `blind`: a question that a model answers without image and description does not teach seeing.
* `judge`: a model that sees the image must come to the row's answers. The only filter that notices an image which does
  not show what its description says.

Long answers are shown to the model for a verdict. Knows no backend.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

from fusionvl.run_folder import fingerprint
from fusionvl.synth.choices import as_asked, choices_of, with_choices
from fusionvl.synth.filters.agreement import agrees, is_short, says_yes
from fusionvl.synth.filters.filter import Filter, FilterModels, Scores, computed_by
from fusionvl.synth.filters.images import decoded
from fusionvl.synth.recipe import identity
from fusionvl.synth.rows import Row, SynthTurn
from fusionvl.synth.text_client import (
    LocalModel,
    Message,
    RequestError,
    TextClient,
    TextRequest,
    message,
    named_model,
    open_client,
)
from fusionvl.synth.workers import devices_here

_MOST_TOKENS = 64  # of a reply

# Votes differ by wording: a model without randomness would repeat itself.
CLOSED_BOOK_TASKS = (
    "Answer the question from the description alone. Give only the answer, as short as possible.",
    "You are given the description of a picture. Reply to the question in a word or a short phrase.",
    "Read the description, then answer the question about it. No explanation, only the answer.",
)
CLOSED_BOOK_VERDICTS = (
    "Does the description support the answer to the question? Reply with yes or no.",
    "Judge by the description: is the answer correct? Reply with yes or no.",
    "Check the answer against the description. Reply yes if all of it is right, no if anything is wrong.",
)
BLIND_TASKS = (
    "Answer the question about a picture that you cannot see. Guess. Give only the answer.",
    "You cannot see the picture. What is the most likely answer? Reply with the answer alone.",
    "Without looking at the picture, reply to the question in a word or a short phrase.",
)
JUDGE_VERDICT = "Look at the image. Is the answer to the question correct? Reply with yes or no."


@dataclass(frozen=True)
class Ask:
    """One request about one turn.

    Attributes:
        turn: Number of the turn.
        messages: The request.
        accepts: Whether a reply is as expected.
    """

    turn: int
    messages: tuple[Message, ...]
    accepts: Callable[[str], bool]


Asks: TypeAlias = Callable[[Row, Path], Iterable[Ask]]
"""The requests about a row, given the folder that its image path is relative to."""


def closed_book_filter(models: FilterModels) -> Filter:
    """The filter `closed-book`.

    Raises:
        ValueError: If no model is given, an endpoint without a model's name, or more votes than wordings.
    """
    model = _text_model("closed-book", models, CLOSED_BOOK_TASKS)
    wording = (CLOSED_BOOK_TASKS, CLOSED_BOOK_VERDICTS)
    return _asking_filter("closed-book", partial(closed_book, votes=models.votes), model, wording, votes=models.votes)


def closed_book(row: Row, folder: Path, votes: int) -> Iterator[Ask]:
    """Each turn's question so many times, with the row's description, or its caption where it has none."""
    text = row.description or row.caption
    for number, turn in enumerate(row.turns):
        for task, verdict in zip(CLOSED_BOOK_TASKS[:votes], CLOSED_BOOK_VERDICTS[:votes], strict=True):
            if is_short(turn):
                told, asked = task, f"Description: {text}\n\nQuestion: {as_asked(turn)}"
            else:
                told = verdict
                asked = f"Description: {text}\n\nQuestion: {turn.question}\nAnswer: {turn.answer}"
            yield Ask(number, (message("system", told), message("user", asked)), _accepts(turn))


def blind_filter(models: FilterModels) -> Filter:
    """The filter `blind`.

    Raises:
        ValueError: If no model is given, an endpoint without a model's name, or more votes than wordings.
    """
    model = _text_model("blind", models, BLIND_TASKS)
    return _asking_filter("blind", partial(blind, votes=models.votes), model, BLIND_TASKS, votes=models.votes)


def blind(row: Row, folder: Path, votes: int) -> Iterator[Ask]:
    """Each turn's question so many times, with nothing to look at.

    Yes-or-no questions are left out, a coin answers half of them; long answers, which nobody guesses, as well. Options
    are turned round between votes, so that a favourite letter is no answer.
    """
    for number, turn in enumerate(row.turns):
        if is_short(turn) and turn.answer.strip(" .").casefold() not in ("yes", "no"):
            for vote, task in enumerate(BLIND_TASKS[:votes]):
                turned = _turned(turn, vote)
                messages = (message("system", task), message("user", as_asked(turned)))
                yield Ask(number, messages, _accepts(turned))


def _turned(turn: SynthTurn, vote: int) -> SynthTurn:
    """The turn with its options moved round by one place a vote."""
    choices = choices_of(turn)
    if choices is None or choices.stated is None:
        return turn
    first = vote % len(choices.options)
    right = choices.options[choices.stated]
    turned = with_choices(turn, (*choices.options[first:], *choices.options[:first]))
    return replace(turned, answer=right, correct=right)


def judge_filter(models: FilterModels) -> Filter:
    """The filter `judge`.

    Raises:
        ValueError: If no model is given, or an endpoint without a model's name.
    """
    if models.judge is None:
        raise ValueError("the filter 'judge' needs a model that sees: --judge")
    model = str(resources.files("fusionvl") / "assets" / "nano") if models.judge == "nano" else models.judge
    return _asking_filter("judge", judge, model, JUDGE_VERDICT)


def judge(row: Row, folder: Path) -> Iterator[Ask]:
    """Each turn's question with the row's image; nothing where that does not decode, image checks see to it."""
    if decoded(row, folder) is None:
        return
    for number, turn in enumerate(row.turns):
        asked = f"Question: {turn.question}\nAnswer: {turn.answer}\n{JUDGE_VERDICT}"
        text = as_asked(turn) if is_short(turn) else asked
        yield Ask(number, (message("user", text, [folder / str(row.image)]),), _accepts(turn))


def _accepts(turn: SynthTurn) -> Callable[[str], bool]:
    return partial(agrees, turn) if is_short(turn) else says_yes


def _text_model(name: str, models: FilterModels, wordings: tuple[str, ...]) -> str:
    if models.text is None:
        raise ValueError(f"the filter {name!r} needs a text model: --text-model")
    if not 1 <= models.votes <= len(wordings):
        raise ValueError(f"{name} votes must be from 1 to {len(wordings)}, got {models.votes}")
    return models.text


def _asking_filter(name: str, asks: Asks, model: str, wording: Any, **options: Any) -> Filter:
    """A filter that asks a model.

    Args:
        name: Of the filter.
        asks: What it asks about a row.
        model: What to ask, see `named_model`.
        wording: All that the model is told besides the row.
        options: What else its scores depend on.
    """
    language_model = named_model(model, max_tokens=_MOST_TOKENS)
    devices = devices_here(language_model.devices) if isinstance(language_model, LocalModel) else ()
    client = open_client(language_model)
    settings = {"model": identity(language_model), "wording": fingerprint(wording), **options}
    columns = dict.fromkeys(_summed_up(name, []), float)
    score = partial(score_replies, name=name, asks=asks, client=client)
    return Filter(name, columns, score, computed_by() | settings, client.close, devices)


async def score_replies(row: Row, folder: Path, name: str, asks: Asks, client: TextClient) -> Scores:
    """Sends the requests about a row, one after the other; many rows are asked about at once.

    Returns:
        `NAME_worst`: of the turns that were asked about, the least share of replies that were as expected; `_mean`,
        and `_asked`, how many turns those were. `blind_guessed`: the share of turns that every vote got right.

    Raises:
        RequestError: If a request got no answer, or one without text.
        ValueError: If the model would answer no request at all, or an image is of a kind that none takes.
    """
    accepted: dict[int, list[bool]] = defaultdict(list)
    for ask in asks(row, folder):
        reply = await client.complete(TextRequest(ask.messages))
        if not reply.text.strip():
            raise RequestError(f"{reply.model}: a reply without text")
        accepted[ask.turn].append(ask.accepts(reply.text))
    return _summed_up(name, [sum(replies) / len(replies) for replies in accepted.values()])


def _summed_up(name: str, shares: list[float]) -> Scores:
    prefix = name.replace("-", "_")
    scores: Scores = {
        f"{prefix}_worst": min(shares, default=None),
        f"{prefix}_mean": sum(shares) / len(shares) if shares else None,
        f"{prefix}_asked": len(shares),
    }
    if name == "blind":
        scores["blind_guessed"] = sum(share == 1 for share in shares) / len(shares) if shares else None
    return scores
