"""The commands of finished runs: `fusionvl synth filter | select | export | inspect | measure-filters`.

One thin function each: parse, call, print. Knows no scores and no formats.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionvl.synth.filters.registry import Models
    from fusionvl.synth.selection import Rules


def add_filter_commands(actions: "argparse._SubParsersAction[Any]") -> None:
    """Adds the commands to the actions of `fusionvl synth`."""
    score = actions.add_parser("filter", help="score the rows of a run; drops none")
    score.add_argument("folder", metavar="DIR", type=Path, help="the run")
    score.add_argument(
        "--filters", metavar="NAME", nargs="+", help="default: all that the given models allow; ocr only when named"
    )
    _add_models(score)
    score.set_defaults(run=_filter)

    select = actions.add_parser("select", help="choose rows by their scores; as often as you like")
    select.add_argument("folder", metavar="DIR", type=Path, help="the run")
    select.add_argument(
        "--limit",
        metavar="SCORE=LEAST:MOST",
        action="append",
        default=[],
        help="judge_worst=0.5: or answer_characters=:200",
    )
    select.add_argument("--best", metavar="SCORE=SHARE", action="append", default=[], help="similarity=0.8")
    select.add_argument(
        "--cap", metavar="NAME=CAP", action="append", default=[], help="answers=0.3, text_group=1, or off"
    )
    select.set_defaults(run=_select)

    export = actions.add_parser("export", help="write the chosen rows as a data set for training")
    export.add_argument("folder", metavar="DIR", type=Path, help="the run")
    export.add_argument("--format", choices=["llava", "parquet", "tar"], default="llava")
    export.add_argument("--output", metavar="DIR", type=Path, help="folder to make (default: DIR/export-FORMAT)")
    export.add_argument("--unfinished", action="store_true", help="also when the run is not finished")
    export.set_defaults(run=_export)

    inspect = actions.add_parser("inspect", help="print and draw the datasheet of a run")
    inspect.add_argument("folder", metavar="DIR", type=Path, help="the run")
    inspect.add_argument("--output", metavar="DIR", type=Path, help="folder of the datasheet (default: DIR/datasheet)")
    inspect.set_defaults(run=_inspect)

    measure = actions.add_parser("measure-filters", help="spoil rows of a good run and count what each filter finds")
    measure.add_argument("folder", metavar="DIR", type=Path, help="a run of procedural scenes")
    measure.add_argument(
        "--filters", metavar="NAME", nargs="+", help="default: all that the given models allow; ocr only when named"
    )
    measure.add_argument("--each", metavar="N", type=int, default=40, help="most rows of each corruption")
    measure.add_argument("--corruptions", metavar="NAME", nargs="+", help="the ways to spoil rows (default: all)")
    measure.add_argument("--seed", type=int, default=0)
    _add_models(measure)
    measure.set_defaults(run=_measure)


def _add_models(parser: argparse.ArgumentParser) -> None:
    endpoint = "URL of an OpenAI-compatible endpoint with the model's name behind a #, or a local model"
    parser.add_argument("--text-model", metavar="URL#NAME|NAME", help=f"for closed-book and blind: {endpoint}")
    parser.add_argument("--judge", metavar="URL#NAME|NAME", help=f"for judge: {endpoint} (nano: the shipped one)")
    parser.add_argument("--similarity-model", metavar="NAME", help="for similarity: a CLIP or SigLIP model")
    parser.add_argument("--votes", type=int, default=3, help="of the text model, for each turn")
    parser.add_argument("--parallel", type=int, default=16, help="most requests in flight")


def _models(options: argparse.Namespace) -> "Models":
    from fusionvl.synth.filters.model_choice import judge_model, text_model
    from fusionvl.synth.filters.registry import Models

    return Models(
        text=None if options.text_model is None else text_model(options.text_model),
        text_name=options.text_model or "",
        judge=None if options.judge is None else judge_model(options.judge),
        judge_name=options.judge or "",
        similarity=options.similarity_model,
        votes=options.votes,
        parallel=options.parallel,
    )


def _filter(options: argparse.Namespace) -> None:
    from fusionvl.synth.filtering import filter_run

    _warn_of_what_is_missing(options.folder)
    models = _models(options)
    table = filter_run(options.folder, options.filters or models.available(), models)
    print(f"{len(table.ids):,} rows scored by {', '.join(table.filters)}: {options.folder / 'scores.parquet'}")
    print(f"Next: fusionvl synth select {options.folder}")


def _select(options: argparse.Namespace) -> None:
    from fusionvl.synth.filtering import kinds_of, sound_rows
    from fusionvl.synth.scores import read_scores
    from fusionvl.synth.selection import select, write_selection

    _warn_of_what_is_missing(options.folder)
    table = read_scores(options.folder)
    rules = _rules(options)
    selection = select(table, kinds_of(table, sound_rows(options.folder), options.folder), rules)
    record = write_selection(options.folder, table, rules, selection)
    print(f"{record['kept']:,} of {record['rows']:,} rows kept")
    for name, count in record["dropped_by"].items():
        print(f"{count:>8,}  {name}")


def _warn_of_what_is_missing(folder: Path) -> None:
    from fusionvl.synth.completeness import what_is_missing

    if missing := what_is_missing(folder):
        print(f"Warning: {folder} holds {missing}", file=sys.stderr)


def _rules(options: argparse.Namespace) -> "Rules":
    from fusionvl.synth.selection import Rules, default_caps, default_limits, parsed_best, parsed_cap, parsed_limit

    limits, caps = default_limits(), default_caps()
    limits |= dict(map(parsed_limit, options.limit))
    for text in options.cap:
        name, cap = parsed_cap(text)
        caps.pop(name, None)
        if cap is not None:
            caps[name] = cap
    return Rules(limits, dict(map(parsed_best, options.best)), caps)


def _export(options: argparse.Namespace) -> None:
    from fusionvl.synth.outputs import export_selection

    output = options.output or options.folder / f"export-{options.format}"
    mixture = export_selection(options.folder, output, options.format, unfinished=options.unfinished)
    print(f"Written: {output}. A recipe trains on it with\ndata:\n  path: {mixture}")


def _inspect(options: argparse.Namespace) -> None:
    from fusionvl.synth.datasheet import write_datasheet

    output = options.output or options.folder / "datasheet"
    print(write_datasheet(options.folder, output))
    print(f"Written: {output / 'datasheet.md'} with its plots and examples")


def _measure(options: argparse.Namespace) -> None:
    from fusionvl.synth.corruptions import CORRUPTIONS, named_corruptions
    from fusionvl.synth.filter_quality import as_table, measure_filters, spoil_rows
    from fusionvl.synth.filtering import sound_rows

    corruptions = CORRUPTIONS if options.corruptions is None else named_corruptions(options.corruptions)
    models = _models(options)
    with tempfile.TemporaryDirectory() as target:
        spoiled = spoil_rows(
            sound_rows(options.folder),
            options.folder,
            Path(target),
            each=options.each,
            seed=options.seed,
            corruptions=corruptions,
        )
        found = measure_filters(spoiled, Path(target), options.filters or models.available(), models)
    print(as_table(spoiled, found))
    print(json.dumps({each.name: {"precision": each.precision, "recall": each.recall} for each in found}))
