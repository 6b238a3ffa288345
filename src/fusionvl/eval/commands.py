"""The commands of scoring: `fusionvl eval TASK...`, `report`, `compare`, `tasks`. Thin: parse, call, print.

Rooms are imported inside the functions, so that `--help` is instant.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fusionvl.engine.options import add_engine_options, engine_from, positive, quiet_transformers

if TYPE_CHECKING:
    from fusionvl.eval.answerer import Answerer
    from fusionvl.eval.judge import EndpointJudge
    from fusionvl.eval.results import Results
    from fusionvl.eval.tables import Table
    from fusionvl.eval.task import Task

_RUN = "run"
_OUTPUT, _PAPER_OUTPUT = Path("runs/eval"), Path("runs/paper")
_ACTIONS = (_RUN, "report", "compare", "tasks")


def with_action(arguments: Sequence[str]) -> list[str]:
    """The command line's arguments, with `fusionvl eval TASK` spelt out as `fusionvl eval run TASK`."""
    given = list(arguments)
    if given[:1] == ["eval"] and len(given) > 1 and given[1] not in (*_ACTIONS, "-h", "--help"):
        given.insert(1, _RUN)
    return given


def add_eval_commands(evaluate: argparse.ArgumentParser) -> None:
    """Add the actions of scoring to its command."""
    evaluate.usage = "fusionvl eval TASK [TASK ...] [options]\n       fusionvl eval {report,compare,tasks} ..."
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
    tasks = actions.add_parser("tasks", help="list the built-in tasks")
    tasks.set_defaults(run=_tasks)


def _add_run(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = actions.add_parser(_RUN, help="score a model; may be left out: fusionvl eval pope. Goes on where it stopped")
    run.add_argument("tasks", metavar="TASK", nargs="*", help="for instance easy-vqa; `fusionvl eval tasks` lists all")
    run.add_argument(
        "--tasks", dest="suite", choices=["paper"], help="paper: all the paper's benchmarks, through lmms-eval"
    )
    run.add_argument(
        "--data", metavar="PATH", type=Path, help="the task's published files; with several tasks, PATH/TASK"
    )
    run.add_argument("--output", type=Path, help=f"scores go to OUTPUT/TASK (default: {_OUTPUT}/MODEL)")
    run.add_argument("--batch-size", type=positive, default=64)
    run.add_argument("--limit", metavar="N", type=positive, help="ask only the first N questions of each task")
    run.add_argument("--shard", metavar="I/N", type=_share, default=(0, 1), help="ask every N-th image's, from I on")
    run.add_argument("--judge-url", metavar="URL", help="OpenAI-compatible endpoint, for tasks that need a judge")
    run.add_argument("--judge-model", metavar="NAME", help="the judge, as the endpoint names it")
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
    if bool(options.tasks) == bool(options.suite):
        raise ValueError("name tasks (`fusionvl eval tasks` lists them), or give --tasks paper")
    if options.suite:
        _run_paper(options)
        return
    from fusionvl.eval.runner import run_task
    from fusionvl.eval.tasks.registry import find_task

    tasks = [find_task(name.replace("-", "_")) for name in dict.fromkeys(options.tasks)]
    judge = _judge(options)
    answerer = _answerer(options)
    output = options.output or _OUTPUT / answerer.name.strip("./").replace("/", "--")
    for task in tasks:
        start, before = time.monotonic(), answerer.image_reuse()
        results = run_task(
            task,
            answerer,
            output / task.name,
            data=_folder_of(task, options.data, several=len(tasks) > 1),
            batch_size=options.batch_size,
            limit=options.limit,
            judge=judge,
            shard=options.shard,
        )
        hits, misses = (after - earlier for after, earlier in zip(answerer.image_reuse(), before, strict=True))
        if results is None:
            print(f"{task.title}: this share is done, others are not yet")
        else:
            _print_results(results)
        reuse = f", {hits} of {hits + misses} times an image's features were known" if hits + misses else ""
        print(f"{time.monotonic() - start:.1f} s{reuse}. Written: {output / task.name}")


def _folder_of(task: "Task", data: Path | None, several: bool) -> Path | None:
    """Where a task's files are: of several, each has a folder of its name but those that come with a package."""
    if data is None or not several:
        return data
    return None if task.comes_with_package else data / task.name


def _run_paper(options: argparse.Namespace) -> None:
    from fusionvl.eval.lmms_eval_run import paper_report, run_paper_tasks

    ours = {
        "--data": options.data,
        "--transformers": options.transformers,
        "--quantize": options.quantize,
        "--judge-url": options.judge_url,
        "--judge-model": options.judge_model,
        "--shard": options.shard[1] > 1,
    }
    given = [name for name, value in ours.items() if value]
    if given:
        raise ValueError(f"--tasks paper runs lmms-eval, which does not know {', '.join(given)}: leave it out")
    scores = run_paper_tasks(
        options.output or _PAPER_OUTPUT,
        model=options.model,
        limit=options.limit,
        batch_size=options.batch_size,
        num_latents=options.num_latents,
        dtype=options.dtype,
        device=options.device,
    )
    print(paper_report(scores, options.model or "nano", limit=options.limit).render("terminal"), end="")


def _answerer(options: argparse.Namespace) -> "Answerer":
    if options.transformers is None:
        from fusionvl.eval.fusion_answerer import FusionAnswerer

        engine = engine_from(options)
        return FusionAnswerer(engine, options.model or "nano", options.num_latents)
    if any(option is not None for option in (options.model, options.num_latents, options.quantize)):
        raise ValueError(
            "--transformers is another model than --model, without --num-latents and --quantize: leave them out"
        )
    from fusionvl.eval.transformers_answerer import TransformersAnswerer

    quiet_transformers()
    return TransformersAnswerer.from_pretrained(options.transformers, dtype=options.dtype, device=options.device)


def _judge(options: argparse.Namespace) -> "EndpointJudge | None":
    if (options.judge_url is None) != (options.judge_model is None):
        raise ValueError("a judge needs both --judge-url and --judge-model")
    if options.judge_url is None:
        return None
    from fusionvl.eval.judge import EndpointJudge

    return EndpointJudge(options.judge_url, options.judge_model)


def _print_results(results: "Results") -> None:
    from fusionvl.eval.report import trouble

    print(f"{results.title}: {results.questions} questions about {results.images} images")
    width = 2 + max(map(len, results.metrics), default=0)
    for name, value in results.metrics.items():
        interval = "  {:.2f} to {:.2f}".format(*results.intervals[name]) if name in results.intervals else ""
        print(f"  {name:<{width}}{value:>8.2f}{interval}")
    if results.intervals:
        print("  with 95 % bootstrap intervals, by image")
    for told in trouble(results):
        print(f"  {told}")


def _report(options: argparse.Namespace) -> None:
    from fusionvl.eval.report import make_report

    report = make_report(options.folders)
    _write(options, report.table())
    if options.plot is not None:
        from fusionvl.eval.plots import radar

        radar(report, options.plot)
        print(f"Written: {options.plot}")


def _compare(options: argparse.Namespace) -> None:
    from fusionvl.eval.compare import compare

    comparison = compare(options.first, options.second)
    _write(options, comparison.table())
    if options.plot is not None:
        from fusionvl.eval.plots import differences

        differences(comparison, options.plot)
        print(f"Written: {options.plot}")


def _write(options: argparse.Namespace, table: "Table") -> None:
    text = table.render(options.format)
    if options.output is None:
        print(text, end="")
        return
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text, encoding="utf-8")
    print(f"Written: {options.output}")


def _tasks(options: argparse.Namespace) -> None:
    from fusionvl.eval.tables import Table
    from fusionvl.eval.tasks.registry import TASKS

    rows = [[task.name, task.title, task.headline, task.source] for task in TASKS.values()]
    header = ["task", "benchmark", "headline", "questions from"]
    print(Table("Built-in tasks", header, rows, text_columns=4).render("terminal"), end="")
