"""The commands of scoring: `fusionvl eval TEST...`, `report`, `compare`, `tasks`. Thin: parse, call, print.

Rooms are imported inside the functions, so that `--help` is instant.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fusionvl.engine.options import add_engine_options, engine_from, positive, quiet_transformers

if TYPE_CHECKING:
    from fusionvl.eval.own_run import Answerer
    from fusionvl.eval.score_store import Results
    from fusionvl.eval.task import Task
    from fusionvl.text_table import Table

_RUN = "run"
_OUTPUT = Path("runs/eval")
_ACTIONS = (_RUN, "report", "compare", "tasks")


def with_action(arguments: Sequence[str]) -> list[str]:
    """The command line's arguments, with `fusionvl eval TEST` spelt out as `fusionvl eval run TEST`."""
    given = list(arguments)
    if given[:1] == ["eval"] and len(given) > 1 and given[1] not in (*_ACTIONS, "-h", "--help"):
        given.insert(1, _RUN)
    return given


def add_eval_commands(evaluate: argparse.ArgumentParser) -> None:
    """Add the actions of scoring to its command."""
    evaluate.usage = "fusionvl eval TEST [TEST ...] [options]\n       fusionvl eval {report,compare,tasks} ..."
    actions = evaluate.add_subparsers(dest="action", required=True, metavar="ACTION", prog="fusionvl eval")
    _add_run(actions)
    report = actions.add_parser("report", help="show scores beside the paper's")
    report.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="what `fusionvl eval` wrote, or above it")
    _add_output(report, "a radar plot of all benchmarks")
    report.set_defaults(run=_report)
    compare = actions.add_parser("compare", help="tell whether two models' scores differ, question by question")
    compare.add_argument("first", metavar="A", type=Path, help="what `fusionvl eval` wrote, or above it")
    compare.add_argument("second", metavar="B", type=Path, help="the other model's")
    _add_output(compare, "the differences with their intervals")
    compare.set_defaults(run=_compare)
    tasks = actions.add_parser("tasks", help="list the tests")
    tasks.set_defaults(run=_tasks)


def _add_run(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = actions.add_parser(_RUN, help="score a model; may be left out: fusionvl eval pope. Goes on where it stopped")
    run.add_argument(
        "tests", metavar="TEST", nargs="*", help="easy-vqa, scenes, a .jsonl file, pope ...: `fusionvl eval tasks`"
    )
    run.add_argument("--tasks", dest="suite", choices=["paper"], help="paper: all its benchmarks, through lmms-eval")
    run.add_argument("--data", metavar="DIR", type=Path, help="the folder of scenes")
    run.add_argument("--output", type=Path, help=f"scores go to OUTPUT/TEST (default: {_OUTPUT}/MODEL)")
    run.add_argument("--batch-size", type=positive, default=64)
    run.add_argument("--limit", metavar="N", type=positive, help="ask only the first N questions of each test")
    run.add_argument("--shard", metavar="I/N", type=_share, default=(0, 1), help="ask every N-th image's, from I on")
    run.add_argument("--processes", metavar="N", type=positive, default=1, help="of lmms-eval, a GPU each")
    run.add_argument(
        "--transformers", metavar="NAME_OR_PATH", help="score any image-text-to-text model of transformers instead"
    )
    add_engine_options(run, generation=False)
    run.set_defaults(run=_run)


def _add_output(parser: argparse.ArgumentParser, picture: str) -> None:
    parser.add_argument("--format", choices=["terminal", "markdown", "html"], default="terminal")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the table there instead of printing it")
    parser.add_argument("--plot", metavar="FILE", type=Path, help=f"{picture}, as PNG")


def _share(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 0 to N-1, for instance 0/4, not {text}")
    return int(index), int(count)


def _run(options: argparse.Namespace) -> None:
    from fusionvl.eval.paper_tasks import PAPER_TASKS
    from fusionvl.eval.tasks.named import own_task

    if bool(options.tests) == bool(options.suite):
        raise ValueError("name tests (`fusionvl eval tasks` lists them), or give --tasks paper")
    names = list(dict.fromkeys(options.tests)) or list(PAPER_TASKS)
    if options.data is not None and "scenes" not in names:
        raise ValueError("--data is the folder of scenes, which are not among the tests: leave it out")
    own = [own_task(name, options.data) for name in names if name not in PAPER_TASKS]
    benchmarks = [name for name in names if name in PAPER_TASKS]
    _check_options(options, own, benchmarks)
    name = options.transformers or options.model or "nano"
    output = options.output or _OUTPUT / name.strip("./").replace("/", "--")
    if own:
        _run_own(options, own, name, output)
    if benchmarks:
        _run_benchmarks(options, benchmarks, output)


def _check_options(options: argparse.Namespace, own: Sequence["Task"], benchmarks: Sequence[str]) -> None:
    """Refuse what would have no effect."""
    of_fusion = (options.model, options.num_latents, options.quantize)
    if options.transformers and any(option is not None for option in of_fusion):
        raise ValueError(
            "--transformers is another model than --model, without --num-latents and --quantize: leave them out"
        )
    ours = {"--transformers": options.transformers, "--quantize": options.quantize, "--shard": options.shard[1] > 1}
    given = [name for name, value in ours.items() if value]
    if benchmarks and given:
        raise ValueError(f"{benchmarks[0]} is run by lmms-eval, which does not know {', '.join(given)}: leave it out")
    if own and options.processes > 1:
        raise ValueError(f"--processes is for lmms-eval's benchmarks; share {own[0].name} with --shard 0/N, 1/N, ...")


def _run_own(options: argparse.Namespace, tasks: Sequence["Task"], name: str, output: Path) -> None:
    from fusionvl.eval.own_run import run_task

    answerer = _answerer(options, name)
    for task in tasks:
        start, before = time.monotonic(), answerer.image_reuse()
        results = run_task(
            task, answerer, output / task.name, batch_size=options.batch_size, limit=options.limit, shard=options.shard
        )
        if results is None:
            print(f"{task.title}: this share is done, others are not yet")
        else:
            _print_results(results)
        hits, misses = (after - earlier for after, earlier in zip(answerer.image_reuse(), before, strict=True))
        reuse = f", {hits} of {hits + misses} times an image's features were known" if hits + misses else ""
        print(f"{time.monotonic() - start:.1f} s{reuse}. Written: {output / task.name}")


def _answerer(options: argparse.Namespace, name: str) -> "Answerer":
    if options.transformers is not None:
        from fusionvl.eval.transformers_answerer import TransformersAnswerer

        quiet_transformers()
        return TransformersAnswerer.from_pretrained(name, dtype=options.dtype, device=options.device)
    from fusionvl.engine.sources import shipped_model
    from fusionvl.eval.fusion_answerer import FusionAnswerer
    from fusionvl.eval.model_fingerprint import model_fingerprint

    engine = engine_from(options)
    return FusionAnswerer(engine, name, model_fingerprint(options.model or shipped_model()), options.num_latents)


def _run_benchmarks(options: argparse.Namespace, names: Sequence[str], output: Path) -> None:
    from fusionvl.eval.benchmark_run import (
        BenchmarkFailedError,
        BenchmarkSettings,
        judge_of,
        may_ask_judge,
        run_benchmark,
    )
    from fusionvl.eval.paper_tasks import PAPER_TASKS

    quiet_transformers()
    settings = BenchmarkSettings.of(
        options.model,
        dtype=options.dtype,
        device=options.device,
        num_latents=options.num_latents,
        batch_size=options.batch_size,
        processes=options.processes,
        limit=options.limit,
    )
    failed = []
    for name in names:
        task, start = PAPER_TASKS[name], time.monotonic()
        if judge_of(task) and not may_ask_judge():
            print(f"{task.title}: not run, as it needs the judge {judge_of(task)} and OPENAI_API_KEY is not set")
            continue
        try:
            _print_results(run_benchmark(task, settings, output / name))
        except BenchmarkFailedError as error:  # others may do better
            failed.append(str(error))
            print(error)
            continue
        print(f"{time.monotonic() - start:.1f} s. Written: {output / name}")
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(names)} benchmarks failed; the same command goes on: {'; '.join(failed)}"
        )
    print(f"Beside the paper's rows: fusionvl eval report {output}")


def _print_results(results: "Results") -> None:
    print(f"{results.title}: {results.questions} questions about {results.images} images")
    width = 2 + max(map(len, results.metrics), default=0)
    for name, value in results.metrics.items():
        interval = "  {:.2f} to {:.2f}".format(*results.intervals[name]) if name in results.intervals else ""
        print(f"  {name:<{width}}{value:>8.2f}{interval}")
    if results.intervals:
        print("  with 95 % bootstrap intervals, by image")
    for told in results.trouble:
        print(f"  {told}")


def _report(options: argparse.Namespace) -> None:
    from fusionvl.eval.plots import radar
    from fusionvl.eval.report import make_report

    report = make_report(options.folders)
    _write(options, report.table())
    if options.plot is not None:
        radar(report, options.plot)
        print(f"Written: {options.plot}")


def _compare(options: argparse.Namespace) -> None:
    from fusionvl.eval.compare import compare
    from fusionvl.eval.plots import differences

    comparison = compare(options.first, options.second)
    _write(options, comparison.table())
    if options.plot is not None:
        differences(comparison, options.plot)
        print(f"Written: {options.plot}")


def _write(options: argparse.Namespace, table: "Table") -> None:
    from fusionvl.run_folder import write_whole

    text = table.render(options.format)
    if options.output is None:
        print(text, end="")
        return
    write_whole(options.output, text)
    print(f"Written: {options.output}")


def _tasks(options: argparse.Namespace) -> None:
    from fusionvl.eval.paper_tasks import PAPER_TASKS
    from fusionvl.eval.tasks.named import OWN
    from fusionvl.text_table import Table

    rows = [[name, title, source] for name, (title, source) in OWN.items()]
    for task in PAPER_TASKS.values():
        rows.append([task.name, task.title, f"lmms-eval{', with a judge' if task.judge else ''}"])
    print(Table("Tests", ["test", "title", "questions from"], rows, text_columns=3).render("terminal"), end="")
