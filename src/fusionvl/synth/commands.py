"""The commands of the data engine: `fusionvl synth ACTION`. Thin: parse, call, print.

Rooms are imported inside the functions, so that `--help` is instant.
"""

import argparse
import json
import logging
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from fusionvl.synth.filters.filter import FilterModels
    from fusionvl.synth.shards import Sharing

_Actions: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_PARALLEL = 64


def add_synth_commands(synth: argparse.ArgumentParser) -> None:
    """Add the engine's actions to its command."""
    actions = synth.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_run(actions)
    _add_small_shapes(actions)
    _add_sheet(actions)
    _add_filter(actions)
    _add_select(actions)
    _add_export(actions)
    _add_inspect(actions)
    _add_measure_filters(actions)


# --- Options ---


def _add_run(actions: _Actions) -> None:
    run = actions.add_parser("run", help="make the rows of a recipe; goes on where it stopped")
    run.add_argument("recipe", metavar="RECIPE", help="a YAML file, for instance recipes/synth/scenes.yaml")
    run.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="replaces a value of the recipe: seed=1")
    run.add_argument("--output", type=Path, help="the run folder (default: runs/synth/NAME)")
    _add_sharing_options(run)
    run.add_argument(
        "--accept-changed-config", action="store_true", help="go on with a folder that other settings began"
    )
    run.set_defaults(run=_run)


def _add_small_shapes(actions: _Actions) -> None:
    shapes = actions.add_parser("small-shapes", help="easy-VQA's train pictures, small, for ablations")
    shapes.add_argument("output", metavar="OUTPUT", type=Path, help="folder to make")
    shapes.add_argument("--count", metavar="N", type=int, default=2000, help="samples of each kind")
    shapes.add_argument("--turns", metavar="N", type=int, default=1, help="questions of a sample, 1 to 3")
    shapes.add_argument("--size", metavar="PIXELS", type=int, default=96, help="of a side")
    shapes.add_argument("--seed", type=int, default=0)
    shapes.add_argument("--split", choices=["train", "held-out"], default="train", help="of the train pictures")
    shapes.set_defaults(run=_small_shapes)


def _add_sheet(actions: _Actions) -> None:
    sheet = _of_a_run(actions, "sheet", _sheet, "put rows of a run on one picture, to look at")
    sheet.add_argument("--output", type=Path, help="the picture (default: DIR/sheet.png)")
    sheet.add_argument("--each", metavar="N", type=_positive, default=2, help="rows of each kind")
    sheet.add_argument("--columns", metavar="N", type=_positive, default=6)


def _add_filter(actions: _Actions) -> None:
    score = _of_a_run(actions, "filter", _filter, "score the rows of a run; drops none")
    _add_filter_options(score)
    _add_sharing_options(score)
    score.add_argument("--rescore", action="store_true", help="give up scores that were made under other settings")


def _add_select(actions: _Actions) -> None:
    select = _of_a_run(actions, "select", _select, "choose rows by their scores; as often as you like")
    limit = "judge_worst=0.5: or answer_characters=:200"
    select.add_argument("--limit", metavar="SCORE=LEAST:MOST", action="append", default=[], help=limit)
    select.add_argument("--best", metavar="SCORE=SHARE", action="append", default=[], help="similarity=0.8")
    cap = "answers=0.3, text_group=1, or off"
    select.add_argument("--cap", metavar="NAME=CAP", action="append", default=[], help=cap)


def _add_export(actions: _Actions) -> None:
    export = _of_a_run(actions, "export", _export, "write the chosen rows as a data set for training")
    export.add_argument("--format", choices=["llava", "parquet", "tar"], default="llava")
    export.add_argument("--output", metavar="DIR", type=Path, help="folder to make (default: DIR/export-FORMAT)")
    export.add_argument("--all", action="store_true", help="every sound row, without a selection: for scenes")
    export.add_argument("--unfinished", action="store_true", help="also when the run is not finished")


def _add_inspect(actions: _Actions) -> None:
    inspect = _of_a_run(actions, "inspect", _inspect, "print and draw the datasheet of a run")
    inspect.add_argument("--output", metavar="DIR", type=Path, help="folder of the datasheet (default: DIR/datasheet)")


def _add_measure_filters(actions: _Actions) -> None:
    told = "spoil rows of a good run and count what filters find"
    measure = _of_a_run(actions, "measure-filters", _measure_filters, told)
    _add_filter_options(measure)
    measure.add_argument("--each", metavar="N", type=int, default=40, help="most rows of each corruption")
    measure.add_argument("--corruptions", metavar="NAME", nargs="+", help="the ways to spoil rows (default: all)")
    measure.add_argument("--seed", type=int, default=0)


def _of_a_run(actions: _Actions, name: str, run: Callable[..., None], told: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=told)
    parser.add_argument("folder", metavar="DIR", type=Path, help="the run")
    parser.set_defaults(run=run)
    return parser


def _add_filter_options(parser: argparse.ArgumentParser) -> None:
    endpoint = "URL of an OpenAI-compatible endpoint with the model's name behind a #, or a local model"
    which = "default: all that the given models allow; ocr only when named"
    parser.add_argument("--filters", metavar="NAME", nargs="+", help=which)
    parser.add_argument("--text-model", metavar="URL#NAME|NAME", help=f"for closed-book and blind: {endpoint}")
    parser.add_argument("--judge", metavar="URL#NAME|NAME", help=f"for judge: {endpoint} (nano: the shipped one)")
    parser.add_argument("--similarity-model", metavar="NAME", help="for similarity: a CLIP or SigLIP model")
    parser.add_argument("--votes", type=int, default=3, help="of the text model, for each turn")
    parser.add_argument(
        "--parallel", metavar="N", type=int, default=_PARALLEL, help="most rows, and requests, at once"
    )


def _add_sharing_options(parser: argparse.ArgumentParser) -> None:
    """What commands that work on shards have in common."""
    share = "every N-th shard only, from the I-th on: for the I-th of N processes, I from 0 to N-1"
    parser.add_argument("--shard", metavar="I/N", type=_share, default=(0, 1), help=share)
    ray = "spread the shards over a Ray cluster (default address: one that runs here, or else this machine alone)"
    parser.add_argument("--ray", metavar="ADDRESS", nargs="?", const="", help=ray)
    workers = "most shards at once on Ray (default: as many as the cluster has room for)"
    parser.add_argument("--ray-workers", metavar="N", type=int, help=workers)
    parser.add_argument("--retry-errors", action="store_true", help="try rows again that are errors")


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


def _sharing_of(options: argparse.Namespace) -> "Sharing":
    from fusionvl.synth.shards import Sharing

    if options.ray_workers is not None and options.ray is None:
        raise ValueError("--ray-workers goes with --ray")
    if options.ray_workers is not None and options.ray_workers < 1:
        raise ValueError(f"--ray-workers must be at least 1, not {options.ray_workers}")
    return Sharing(options.shard, options.ray, options.ray_workers, options.retry_errors)


def _filters_of(options: argparse.Namespace) -> tuple[tuple[str, ...], "FilterModels"]:
    """The filters that a user asks for, and their models."""
    from fusionvl.synth.filters import available
    from fusionvl.synth.filters.filter import FilterModels

    if options.parallel < 1:
        raise ValueError(f"--parallel must be at least 1, not {options.parallel}")
    models = FilterModels(options.text_model, options.judge, options.similarity_model, options.votes)
    return tuple(options.filters or available(models)), models


# --- Actions ---


def _run(options: argparse.Namespace) -> None:
    from fusionvl.synth.recipe import load_synth_recipe
    from fusionvl.synth.run import synthesize

    logging.basicConfig(format="%(message)s")
    recipe = load_synth_recipe(options.recipe, options.overrides)
    folder = options.output or Path("runs") / "synth" / recipe.name
    tally = synthesize(recipe, folder, _sharing_of(options), accept_changed=options.accept_changed_config)
    print(f"{tally} in {folder}")
    _tell_of_errors(tally.rows["error"])


def _small_shapes(options: argparse.Namespace) -> None:
    from fusionvl.synth.small_shapes import SmallShapeSettings, write_small_shapes

    settings = SmallShapeSettings(options.count, options.turns, options.size, options.seed, options.split)
    print(f"Written: {write_small_shapes(options.output, settings)}")


def _sheet(options: argparse.Namespace) -> None:
    from fusionvl.synth.contact_sheet import write_sheet

    path = options.output or options.folder / "sheet.png"
    write_sheet(options.folder, path, options.each, options.columns)
    print(f"Written: {path}")


def _filter(options: argparse.Namespace) -> None:
    from fusionvl.synth.filtering import filter_run

    _warn_of_what_is_missing(options.folder)
    names, models = _filters_of(options)
    tallies = filter_run(
        options.folder, names, models, _sharing_of(options), parallel=options.parallel, rescore=options.rescore
    )
    for name, tally in tallies.items():
        print(f"{name}: {tally}")
    _tell_of_errors(sum(tally.rows["error"] for tally in tallies.values()))
    print(f"Next: fusionvl synth select {options.folder}")


def _tell_of_errors(count: int) -> None:
    if count:
        print("Errors may pass: run again with --retry-errors")


def _select(options: argparse.Namespace) -> None:
    from fusionvl.synth.selection import asked_rules, select_rows, write_selection

    _warn_of_what_is_missing(options.folder)
    rules = asked_rules(options.limit, options.best, options.cap)
    record = write_selection(options.folder, *select_rows(options.folder, rules), rules)
    print(f"{record['kept']:,} of {record['rows']:,} rows kept")
    for name, count in record["dropped_by"].items():
        if count:
            print(f"{count:>8,}  {name}")


def _warn_of_what_is_missing(folder: Path) -> None:
    from fusionvl.synth.plan import what_is_missing

    if missing := what_is_missing(folder):
        print(f"Warning: {folder} holds {missing}", file=sys.stderr)


def _export(options: argparse.Namespace) -> None:
    from fusionvl.synth.export import export_selection

    output = options.output or options.folder / f"export-{options.format}"
    mixture = export_selection(
        options.folder, output, options.format, everything=options.all, unfinished=options.unfinished
    )
    print(f"Written: {output}. A recipe trains on it with\ndata:\n  path: {mixture}")


def _inspect(options: argparse.Namespace) -> None:
    from fusionvl.synth.datasheet import write_datasheet

    output = options.output or options.folder / "datasheet"
    print(write_datasheet(options.folder, output))
    print(f"Written: {output / 'datasheet.md'} with its plots and examples")


def _measure_filters(options: argparse.Namespace) -> None:
    from fusionvl.synth.corruptions import CORRUPTIONS, named_corruptions
    from fusionvl.synth.filter_quality import as_table, measure_filters, spoil_run

    corruptions = CORRUPTIONS if options.corruptions is None else named_corruptions(options.corruptions)
    names, models = _filters_of(options)
    with tempfile.TemporaryDirectory() as target:
        spoiled = spoil_run(
            options.folder, Path(target), each=options.each, seed=options.seed, corruptions=corruptions
        )
        found = measure_filters(spoiled, Path(target), names, models, options.parallel)
    print(as_table(spoiled, found))
    print(json.dumps({each.name: {"precision": each.precision, "recall": each.recall} for each in found}))
