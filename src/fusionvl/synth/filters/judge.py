"""The judge: a vision-language model that sees the image must come to the row's answers.

The only filter that notices an image which does not show what its description says. Knows no backend.
"""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from fusionvl.synth.choices import as_asked
from fusionvl.synth.filters.agreement import agrees, is_short, says_yes
from fusionvl.synth.filters.asking import Ask, asking_filter, score_columns, shares_accepted, summed_up
from fusionvl.synth.filters.filter import Filter, FilterModels, Scores
from fusionvl.synth.filters.images import decoded
from fusionvl.synth.rows import Row, SynthTurn
from fusionvl.synth.text_client import TextClient, message

JUDGE_COLUMNS = score_columns("judge")
VERDICT = "Look at the image. Is the answer to the question correct? Reply with yes or no."


def judge_filter(models: FilterModels) -> Filter:
    """The filter `judge`.

    Raises:
        ValueError: If no model is given, or an endpoint without a model's name.
    """
    if models.judge is None:
        raise ValueError("the filter 'judge' needs a model that sees: --judge")
    model = str(resources.files("fusionvl") / "assets" / "nano") if models.judge == "nano" else models.judge
    return asking_filter("judge", JUDGE_COLUMNS, score_judge, model, VERDICT)


async def score_judge(row: Row, folder: Path, client: TextClient) -> Scores:
    """Asks each turn's question with the row's image.

    Args:
        row: One without an image that decodes is not asked about; image checks see to those.
        folder: The run's, which image paths are relative to.
        client: Asks a model that sees.

    Returns:
        `judge_worst`: 0 if the model comes to another answer in any turn, else 1; `_mean`, `_asked`.

    Raises:
        RequestError: If a request got no answer.
        ValueError: If the model would answer no request at all, or an image is of a kind that none takes.
    """
    asks = [] if decoded(row, folder) is None else _asks(row, folder / str(row.image))
    return summed_up("judge", await shares_accepted(client, asks))


def _asks(row: Row, image: Path) -> Iterator[Ask]:
    for index, turn in enumerate(row.turns):
        yield _ask(index, turn, image)


def _ask(index: int, turn: SynthTurn, image: Path) -> Ask:
    if is_short(turn):
        return Ask(index, (message("user", as_asked(turn), [image]),), lambda reply: agrees(turn, reply))
    text = f"Question: {turn.question}\nAnswer: {turn.answer}\n{VERDICT}"
    return Ask(index, (message("user", text, [image]),), says_yes)
