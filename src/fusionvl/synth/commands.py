"""The commands of the data engine: `fusionvl synth ACTION`. Thin: parse, call, print.

Rooms are imported inside the functions, so that `--help` is instant.
"""

import argparse
import logging
import re
from pathlib import Path


def add_synth_commands(synth: argparse.ArgumentParser) -> None:
    """Add the engine's actions to its command."""
    actions = synth.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_run(actions)


def _add_run(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = actions.add_parser("run", help="make the rows of a recipe; goes on where it stopped")
    run.add_argument("recipe", metavar="RECIPE", help="a YAML file, for instance recipes/synth/scenes.yaml")
    run.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="replaces a value of the recipe: seed=1")
    run.add_argument("--output", type=Path, help="the run folder (default: runs/synth/NAME)")
    run.add_argument(
        "--shard",
        metavar="I/N",
        type=_share,
        default=(0, 1),
        help="make every N-th shard only, from the I-th on: for the I-th of N processes, I from 0 to N-1",
    )
    run.add_argument("--retry-errors", action="store_true", help="try rows again that are errors")
    run.add_argument(
        "--accept-changed-config", action="store_true", help="go on with a folder that other settings began"
    )
    run.set_defaults(run=_run)


def _share(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 0 to N-1, for instance 0/4, not {text}")
    return int(match[1]), int(match[2])


def _run(options: argparse.Namespace) -> None:
    from fusionvl.synth.recipe import load_synth_recipe
    from fusionvl.synth.run import synthesize

    logging.basicConfig(format="%(message)s")
    recipe = load_synth_recipe(options.recipe, options.overrides)
    folder = options.output or Path("runs") / "synth" / recipe.name
    tally = synthesize(
        recipe,
        folder,
        share=options.shard,
        retry_errors=options.retry_errors,
        accept_changed=options.accept_changed_config,
    )
    print(f"{tally} in {folder}")
    if tally.rows["error"]:
        print("Errors may pass: run again with --retry-errors")
