"""The commands of the data engine: `fusionvl synth ACTION`. Thin: parse, call, print.

Rooms are imported inside the functions, so that `--help` is instant.
"""

import argparse
import logging
from pathlib import Path

from fusionvl.synth.distribution import add_sharing_options, sharing_of
from fusionvl.synth.filter_commands import add_filter_commands


def add_synth_commands(synth: argparse.ArgumentParser) -> None:
    """Add the engine's actions to its command."""
    actions = synth.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_run(actions)
    _add_small_shapes(actions)
    _add_sheet(actions)
    add_filter_commands(actions)


def _add_run(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = actions.add_parser("run", help="make the rows of a recipe; goes on where it stopped")
    run.add_argument("recipe", metavar="RECIPE", help="a YAML file, for instance recipes/synth/scenes.yaml")
    run.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="replaces a value of the recipe: seed=1")
    run.add_argument("--output", type=Path, help="the run folder (default: runs/synth/NAME)")
    add_sharing_options(run)
    run.add_argument(
        "--accept-changed-config", action="store_true", help="go on with a folder that other settings began"
    )
    run.set_defaults(run=_run)


def _add_small_shapes(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    shapes = actions.add_parser("small-shapes", help="easy-VQA's train pictures, small, for ablations")
    shapes.add_argument("output", metavar="OUTPUT", type=Path, help="folder to make")
    shapes.add_argument("--count", metavar="N", type=int, default=2000, help="samples of each kind")
    shapes.add_argument("--turns", metavar="N", type=int, default=1, help="questions of a sample, 1 to 3")
    shapes.add_argument("--size", metavar="PIXELS", type=int, default=96, help="of a side")
    shapes.add_argument("--seed", type=int, default=0)
    shapes.add_argument("--split", choices=["train", "held-out"], default="train", help="of the train pictures")
    shapes.set_defaults(run=_small_shapes)


def _add_sheet(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    sheet = actions.add_parser("sheet", help="put rows of a run on one picture, to look at")
    sheet.add_argument("folder", metavar="DIR", type=Path, help="the run")
    sheet.add_argument("--output", type=Path, help="the picture (default: DIR/sheet.png)")
    sheet.add_argument("--each", metavar="N", type=_positive, default=2, help="rows of each kind")
    sheet.add_argument("--columns", metavar="N", type=_positive, default=6)
    sheet.set_defaults(run=_sheet)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _run(options: argparse.Namespace) -> None:
    from fusionvl.synth.recipe import load_synth_recipe
    from fusionvl.synth.run import synthesize

    logging.basicConfig(format="%(message)s")
    recipe = load_synth_recipe(options.recipe, options.overrides)
    folder = options.output or Path("runs") / "synth" / recipe.name
    tally = synthesize(recipe, folder, sharing_of(options), accept_changed=options.accept_changed_config)
    print(f"{tally} in {folder}")
    if tally.rows["error"]:
        print("Errors may pass: run again with --retry-errors")


def _small_shapes(options: argparse.Namespace) -> None:
    from fusionvl.synth.small_shapes import SmallShapeSettings, write_small_shapes

    settings = SmallShapeSettings(options.count, options.turns, options.size, options.seed, options.split)
    print(f"Written: {write_small_shapes(options.output, settings)}")


def _sheet(options: argparse.Namespace) -> None:
    from fusionvl.synth.contact_sheet import contact_sheet
    from fusionvl.synth.row_files import first_with_image

    path = options.output or options.folder / "sheet.png"
    shown = ((row.kind, image, row.turns) for row, image in first_with_image(options.folder, options.each))
    contact_sheet(shown, columns=options.columns).save(path)
    print(f"Written: {path}")
