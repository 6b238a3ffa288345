"""The filters by name, and which of them can run with the models that are given."""

from collections.abc import Callable, Mapping

from fusionvl.synth.filters.asking import blind_filter, closed_book_filter, judge_filter
from fusionvl.synth.filters.balance import BALANCE_COLUMNS, score_balance
from fusionvl.synth.filters.duplicates import duplicates_filter
from fusionvl.synth.filters.filter import Filter, FilterModels, plain_filter
from fusionvl.synth.filters.images import IMAGE_COLUMNS, score_image
from fusionvl.synth.filters.ocr import ocr_filter
from fusionvl.synth.filters.rules import RULE_COLUMNS, score_rules
from fusionvl.synth.filters.similarity import similarity_filter

FILTERS: Mapping[str, Callable[[FilterModels], Filter]] = {
    "rules": lambda _: plain_filter("rules", RULE_COLUMNS, score_rules),
    "images": lambda _: plain_filter("images", IMAGE_COLUMNS, score_image, "pillow"),
    "duplicates": duplicates_filter,
    "balance": lambda _: plain_filter("balance", BALANCE_COLUMNS, score_balance),
    "ocr": ocr_filter,
    "closed-book": closed_book_filter,
    "blind": blind_filter,
    "judge": judge_filter,
    "similarity": similarity_filter,
}
"""What makes each filter ready, in the order to run them in."""

NEEDS_NO_MODEL = ("rules", "images", "duplicates", "balance")
"""The filters that run anywhere, at once. `ocr` needs an extra and takes its time: it runs when it is named."""


def make_filter(name: str, models: FilterModels) -> Filter:
    """Makes a filter ready; a model is loaded when it is first asked.

    Raises:
        ValueError: If there is no such filter, or the model it needs is not given.
        ModuleNotFoundError: If the extra it needs is not installed.
    """
    if name not in FILTERS:
        raise ValueError(f"there is no filter {name!r}, only {', '.join(FILTERS)}")
    return FILTERS[name](models)


def available(models: FilterModels) -> tuple[str, ...]:
    """The filters that can run with these models, in the order to run them in."""
    return (
        *NEEDS_NO_MODEL,
        *(("closed-book", "blind") if models.text is not None else ()),
        *(("judge",) if models.judge is not None else ()),
        *(("similarity",) if models.similarity is not None else ()),
    )
