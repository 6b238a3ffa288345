"""The commands of the data engine: `fusionvl synth ACTION`. Thin: parse, call, print.

Rooms are imported inside the functions, so that `--help` is instant.
"""

import argparse
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fusionvl.synth.filter_commands import add_filter_commands

if TYPE_CHECKING:
    from fusionvl.synth.progress import Tally
    from fusionvl.synth.recipe import SynthRecipe


def add_synth_commands(synth: argparse.ArgumentParser) -> None:
    """Add the engine's actions to its command."""
    actions = synth.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_run(actions)
    _add_scenes(actions)
    _add_composites(actions)
    _add_sheet(actions)
    add_filter_commands(actions)


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
    run.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const="",
        help="spread the shards over a Ray cluster (default address: one that runs here, or else this machine alone)",
    )
    run.add_argument(
        "--ray-workers",
        metavar="N",
        type=_positive,
        help="most at once (default: as many as the cluster has room for)",
    )
    run.add_argument("--retry-errors", action="store_true", help="try rows again that are errors")
    run.add_argument(
        "--accept-changed-config", action="store_true", help="go on with a folder that other settings began"
    )
    run.set_defaults(run=_run)


def _add_scenes(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    scenes = actions.add_parser("scenes", help="draw scenes as a LLaVA data set, in one go; goes on where it stopped")
    scenes.add_argument("output", metavar="OUTPUT", type=Path, help="folder of the images and conversations")
    scenes.add_argument("--count", metavar="N", type=_positive, default=1000, help="samples of each kind")
    scenes.add_argument(
        "--kinds", metavar="KIND", nargs="+", help="SynthColor, SynthLayout, ... (default: the paper's twelve)"
    )
    scenes.add_argument("--size", metavar="PIXELS", type=_positive, default=384, help="of a side, 64 to 1024")
    scenes.add_argument("--seed", type=int, default=0)
    scenes.add_argument("--split", choices=["train", "held-out"], default="train", help="share no shape-colour pair")
    scenes.add_argument("--processes", type=_positive, default=1)
    scenes.set_defaults(run=_scenes)


def _add_composites(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    composites = actions.add_parser("composites", help="put easy-VQA's train pictures together, with questions")
    composites.add_argument("output", metavar="OUTPUT", type=Path, help="folder of the images and conversations")
    composites.add_argument("--count", metavar="N", type=_positive, default=2000, help="samples of each kind")
    composites.add_argument("--parts", metavar="N", type=_positive, default=4, help="pictures in a sample, 1 or 4")
    composites.add_argument("--turns", metavar="N", type=_positive, default=1, help="questions of a sample, 1 to 4")
    composites.add_argument("--size", metavar="PIXELS", type=_positive, default=96, help="of a side")
    composites.add_argument("--seed", type=int, default=0)
    composites.add_argument("--split", choices=["train", "held-out"], default="train", help="of the train pictures")
    composites.set_defaults(run=_composites)


def _add_sheet(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    sheet = actions.add_parser("sheet", help="put samples of a data set on one picture, to look at")
    sheet.add_argument("folder", metavar="FOLDER", type=Path, help="what `fusionvl synth scenes` wrote")
    sheet.add_argument("--output", type=Path, help="the picture (default: FOLDER/sheet.png)")
    sheet.add_argument("--each", metavar="N", type=_positive, default=2, help="samples of each kind")
    sheet.add_argument("--columns", metavar="N", type=_positive, default=6)
    sheet.set_defaults(run=_sheet)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _share(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 0 to N-1, for instance 0/4, not {text}")
    return int(match[1]), int(match[2])


def _run(options: argparse.Namespace) -> None:
    from fusionvl.synth.recipe import load_synth_recipe

    logging.basicConfig(format="%(message)s")
    recipe = load_synth_recipe(options.recipe, options.overrides)
    folder = options.output or Path("runs") / "synth" / recipe.name
    tally = _make(recipe, folder, options)
    print(f"{tally} in {folder}")
    if tally.rows["error"]:
        print("Errors may pass: run again with --retry-errors")


def _make(recipe: "SynthRecipe", folder: Path, options: argparse.Namespace) -> "Tally":
    from fusionvl.synth.ray_run import synthesize_on_ray
    from fusionvl.synth.run import synthesize

    choices = {
        "share": options.shard,
        "retry_errors": options.retry_errors,
        "accept_changed": options.accept_changed_config,
    }
    if options.ray is not None:
        return synthesize_on_ray(recipe, folder, options.ray or None, workers=options.ray_workers, **choices)
    if options.ray_workers is not None:
        raise ValueError("--ray-workers goes with --ray")
    return synthesize(recipe, folder, **choices)


def _scenes(options: argparse.Namespace) -> None:
    from fusionvl.synth.scenes.kinds import KINDS
    from fusionvl.synth.scenes.scene_folder import write_scenes

    mixture = write_scenes(
        options.output,
        options.count,
        kinds=options.kinds or tuple(KINDS),
        size=options.size,
        seed=options.seed,
        split=options.split,
        processes=options.processes,
    )
    print(f"Written: {mixture}. Look at it: fusionvl synth sheet {options.output}")


def _composites(options: argparse.Namespace) -> None:
    from fusionvl.synth.composites import CompositeSettings, write_composites

    shown, asked = options.parts, options.turns
    settings = CompositeSettings(options.count, shown, asked, options.size, options.seed, options.split)
    print(f"Written: {write_composites(options.output, settings)}")


def _sheet(options: argparse.Namespace) -> None:
    from fusionvl.synth.scenes.contact_sheet import folder_sheet

    path = options.output or options.folder / "sheet.png"
    folder_sheet(options.folder, each=options.each, columns=options.columns).save(path)
    print(f"Written: {path}")
