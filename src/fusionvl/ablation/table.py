"""The table of an ablation: a row a variant, compared with the first one. Knows results and text only."""

from collections.abc import Sequence

from fusionvl.ablation.results import Difference, Result, mean_and_deviation, paired_difference
from fusionvl.text_table import markdown


def rows(results: Sequence[Result], variants: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Head and cells of the table.

    Args:
        results: Of the variants, in any order.
        variants: In the table's order; the others are compared with the first. Those without results are left out.
    """
    kinds = sorted({kind for result in results for kind in result.correct_by_kind})
    head = ["variant", "runs", "parameters", "image + latent tokens", "prompt tokens", "exact answers, %"]
    head += [f"difference to {variants[0]}", *kinds, "s a step", "ms an answer"]
    of = {name: [result for result in results if result.variant == name] for name in variants}
    first = of[variants[0]]
    return head, [_row(of[name], [] if name == variants[0] else first, kinds) for name in variants if of[name]]


def as_markdown(results: Sequence[Result], variants: Sequence[str]) -> str:
    """The table in Markdown, its columns aligned for a terminal."""
    head, body = rows(results, variants)
    return "\n".join(markdown(head, body, text_columns=len(head)))


def _row(own: Sequence[Result], first: Sequence[Result], kinds: Sequence[str]) -> list[str]:
    """One variant, compared with the first where that has results; accuracies and times are means over its runs."""
    one = own[0]
    steps = [result.seconds_per_step for result in own if result.seconds_per_step is not None]
    difference = paired_difference(
        {result.seed: result.accuracy for result in own}, {result.seed: result.accuracy for result in first}
    )
    return [
        one.variant,
        str(len(own)),
        f"{one.parameters:,}",
        f"{one.image_tokens} + {one.latent_tokens}",
        f"{one.prompt_tokens:.0f}",
        _percent([result.accuracy for result in own]),
        "" if difference is None else told(difference),
        *(_percent([result.accuracy_of(kind) for result in own]) for kind in kinds),
        f"{mean_and_deviation(steps)[0]:.3f}" if steps else "",
        f"{1000 * mean_and_deviation([result.seconds_per_answer for result in own])[0]:.1f}",
    ]


def told(difference: Difference) -> str:
    """A difference in percentage points with its interval: `-3.2 [-5.0, -1.4]`; a star where zero lies outside."""
    middle = 100 * difference.mean
    if difference.half_width is None:
        return f"{middle:+.1f} (one seed)"
    half = 100 * difference.half_width
    return f"{middle:+.1f} [{middle - half:+.1f}, {middle + half:+.1f}]{' *' if difference.is_clear else ''}"


def _percent(values: Sequence[float]) -> str:
    mean, deviation = mean_and_deviation(values)
    return f"{100 * mean:.1f}" if deviation is None else f"{100 * mean:.1f} ± {100 * deviation:.1f}"
