"""Questions to a model with an expected outcome, and how often it comes: what the filters that ask a model share.

Knows no prompts: `closed_book.py`, `blind.py` and `judge.py` write them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fusionvl.run_folder import fingerprint
from fusionvl.synth.filters.filter import Filter, Scores, computed_by
from fusionvl.synth.recipe import identity
from fusionvl.synth.text_client import (
    LocalModel,
    Message,
    RequestError,
    TextClient,
    TextRequest,
    named_model,
    open_client,
)
from fusionvl.synth.workers import devices_here

_MOST_TOKENS = 64  # of a reply


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


def asking_filter(
    name: str, columns: Mapping[str, type], score: Callable[..., Any], model: str, wording: Any, **options: Any
) -> Filter:
    """A filter that asks a model.

    Args:
        name: Of the filter.
        columns: Its scores.
        score: Scores a row, given folder, client and the options.
        model: What to ask, see `named_model`.
        wording: All that the model is told besides the row.
        options: What else its scores depend on.

    Raises:
        ValueError: If an endpoint is given without a model's name.
    """
    language_model = named_model(model, max_tokens=_MOST_TOKENS)
    devices = devices_here(language_model.devices) if isinstance(language_model, LocalModel) else ()
    client = open_client(language_model)
    settings = {"model": identity(language_model), "wording": fingerprint(wording), **options}
    scored = partial(score, client=client, **options)
    return Filter(name, columns, scored, computed_by() | settings, client.close, devices)


async def shares_accepted(client: TextClient, asks: Iterable[Ask]) -> list[float]:
    """Sends the requests about a row, one after the other; many rows are asked about at once.

    Returns:
        For each turn that was asked about, the share of the replies that were as expected.

    Raises:
        RequestError: If one of them brings no text.
        ValueError: If the model would answer no request at all.
    """
    accepted: dict[int, list[bool]] = defaultdict(list)
    for ask in asks:
        reply = await client.complete(TextRequest(ask.messages))
        if not reply.text.strip():
            raise RequestError(f"{reply.model}: a reply without text")
        accepted[ask.turn].append(ask.accepts(reply.text))
    return [sum(replies) / len(replies) for replies in accepted.values()]


def summed_up(prefix: str, shares: list[float]) -> Scores:
    """The scores of a row: its worst turn, its mean turn, and how many turns were asked about."""
    return {
        f"{prefix}_worst": min(shares, default=None),
        f"{prefix}_mean": sum(shares) / len(shares) if shares else None,
        f"{prefix}_asked": len(shares),
    }


def score_columns(prefix: str) -> dict[str, type]:
    """The columns that `summed_up` gives."""
    return dict.fromkeys(summed_up(prefix, []), float)
