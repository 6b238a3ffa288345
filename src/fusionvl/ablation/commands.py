"""The command of the ablation room: `fusionvl ablate`. Thin: parse, call, print.

Rooms are imported inside the functions, so that `--help` is instant.
"""

import argparse
import logging
from pathlib import Path

from fusionvl.engine.options import quiet_bitsandbytes


def add_ablate_command(ablate: argparse.ArgumentParser) -> None:
    """Add arguments and action to the command."""
    ablate.add_argument(
        "recipe", metavar="RECIPE", nargs="?", default="recipes/ablation.yaml", help="default: recipes/ablation.yaml"
    )
    ablate.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="replaces a value of the recipe")
    ablate.add_argument("--output", type=Path, help="folder of the ablation (default: runs/NAME)")
    ablate.add_argument("--report", action="store_true", help="only print what is finished; train nothing")
    ablate.set_defaults(run=_ablate)


def _ablate(options: argparse.Namespace) -> None:
    from transformers.utils import logging as transformers_logging

    from fusionvl.ablation.recipe import load_ablation
    from fusionvl.ablation.run import ablate, recorded_results, report
    from fusionvl.ablation.table import as_markdown

    logging.basicConfig(format="%(message)s")
    logging.getLogger("fusionvl").setLevel(logging.INFO)
    transformers_logging.disable_progress_bar()
    quiet_bitsandbytes()
    recipe = load_ablation(options.recipe, options.overrides)
    output = options.output or Path("runs") / recipe.name
    results = recorded_results(recipe, output) if options.report else ablate(recipe, output)
    report(recipe, results, output)
    print(as_markdown(results, [variant.name for variant in recipe.variants]))
    print(f"Written: {', '.join(str(output / name) for name in ('results.jsonl', 'table.md', 'results.png'))}")
