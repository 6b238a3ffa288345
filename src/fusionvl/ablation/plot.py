"""The plot of an ablation: every run as a point, the mean of each variant as a bar, beside what a prompt costs."""

from collections.abc import Sequence
from pathlib import Path

from fusionvl.ablation.results import Result, mean_and_deviation
from fusionvl.data.extras import import_extra


def plot_results(results: Sequence[Result], variants: Sequence[str], path: Path) -> None:
    """Draw exact answers and prompt tokens of each variant that has results.

    Raises:
        ModuleNotFoundError: When matplotlib is not installed.
    """
    figures = import_extra("matplotlib.figure", extra="train", needed_for="the plot of an ablation")
    of = {name: [result for result in results if result.variant == name] for name in variants}
    names = [name for name in variants if of[name]][::-1]  # the first on top
    figure = figures.Figure(figsize=(9, 0.42 * len(names) + 1.2), layout="constrained")
    scores, costs = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    for place, name in enumerate(names):
        own = [100 * result.accuracy for result in of[name]]
        scores.barh(place, mean_and_deviation(own)[0], color="#56B4E9", height=0.6)
        scores.scatter(own, [place] * len(own), color="black", s=14, zorder=3)
        costs.barh(place, of[name][0].prompt_tokens, color="#E69F00", height=0.6)
    reference = of[variants[0]]
    if reference:
        scores.axvline(mean_and_deviation([100 * r.accuracy for r in reference])[0], color="0.3", linestyle=":")
    scores.set_yticks(range(len(names)), names)
    scores.set_xlabel("exact answers, % (a point a seed)")
    costs.set_xlabel("tokens of a prompt")
    figure.savefig(path, dpi=110)
