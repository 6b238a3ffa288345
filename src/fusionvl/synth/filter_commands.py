"""The commands of finished runs: `fusionvl synth filter | select | export | inspect | measure-filters`.

One thin function each: parse, call, print. Knows no scores and no formats.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionvl.synth.distribution import add_sharing_options, sharing_of

if TYPE_CHECKING:
    from fusionvl.synth.filters.filter import FilterModels

_PARALLEL = 64


def add_filter_commands(actions: "argparse._SubParsersAction[Any]") -> None:
    """Adds the commands to the actions of `fusionvl synth`."""
    score = _command(actions, "filter", _filter, "score the rows of a run; drops none")
    _add_filters(score)
    add_sharing_options(score)
    score.add_argument("--rescore", action="store_true", help="give up scores that were made under other settings")

    select = _command(actions, "select", _select, "choose rows by their scores; as often as you like")
    limit = "judge_worst=0.5: or answer_characters=:200"
    select.add_argument("--limit", metavar="SCORE=LEAST:MOST", action="append", default=[], help=limit)
    select.add_argument("--best", metavar="SCORE=SHARE", action="append", default=[], help="similarity=0.8")
    cap = "answers=0.3, text_group=1, or off"
    select.add_argument("--cap", metavar="NAME=CAP", action="append", default=[], help=cap)

    export = _command(actions, "export", _export, "write the chosen rows as a data set for training")
    export.add_argument("--format", choices=["llava", "parquet", "tar"], default="llava")
    export.add_argument("--output", metavar="DIR", type=Path, help="folder to make (default: DIR/export-FORMAT)")
    export.add_argument("--all", action="store_true", help="every sound row, without a selection: for scenes")
    export.add_argument("--unfinished", action="store_true", help="also when the run is not finished")

    inspect = _command(actions, "inspect", _inspect, "print and draw the datasheet of a run")
    inspect.add_argument("--output", metavar="DIR", type=Path, help="folder of the datasheet (default: DIR/datasheet)")

    measure = _command(actions, "measure-filters", _measure, "spoil rows of a good run and count what filters find")
    _add_filters(measure)
    measure.add_argument("--each", metavar="N", type=int, default=40, help="most rows of each corruption")
    measure.add_argument("--corruptions", metavar="NAME", nargs="+", help="the ways to spoil rows (default: all)")
    measure.add_argument("--seed", type=int, default=0)


def _command(actions: Any, name: str, run: Any, told: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=told)
    parser.add_argument("folder", metavar="DIR", type=Path, help="the run")
    parser.set_defaults(run=run)
    return parser


def _add_filters(parser: argparse.ArgumentParser) -> None:
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


def _chosen(options: argparse.Namespace) -> tuple[tuple[str, ...], "FilterModels"]:
    """The filters that a user asks for, and their models."""
    from fusionvl.synth.filters.filter import FilterModels
    from fusionvl.synth.filters.registry import available

    if options.parallel < 1:
        raise ValueError(f"--parallel must be at least 1, not {options.parallel}")
    models = FilterModels(options.text_model, options.judge, options.similarity_model, options.votes)
    return tuple(options.filters or available(models)), models


def _filter(options: argparse.Namespace) -> None:
    from fusionvl.synth.filtering import filter_run

    _warn_of_what_is_missing(options.folder)
    names, models = _chosen(options)
    tallies = filter_run(
        options.folder, names, models, sharing_of(options), parallel=options.parallel, rescore=options.rescore
    )
    for name, tally in tallies.items():
        print(f"{name}: {tally}")
    if any(tally.rows["error"] for tally in tallies.values()):
        print("Errors may pass: run again with --retry-errors")
    print(f"Next: fusionvl synth select {options.folder}")


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
    from fusionvl.synth.row_files import what_is_missing

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


def _measure(options: argparse.Namespace) -> None:
    from fusionvl.synth.corruptions import CORRUPTIONS, named_corruptions
    from fusionvl.synth.filter_quality import as_table, measure_filters, spoil_run

    corruptions = CORRUPTIONS if options.corruptions is None else named_corruptions(options.corruptions)
    names, models = _chosen(options)
    with tempfile.TemporaryDirectory() as target:
        spoiled = spoil_run(
            options.folder, Path(target), each=options.each, seed=options.seed, corruptions=corruptions
        )
        found = measure_filters(spoiled, Path(target), names, models, options.parallel)
    print(as_table(spoiled, found))
    print(json.dumps({each.name: {"precision": each.precision, "recall": each.recall} for each in found}))
