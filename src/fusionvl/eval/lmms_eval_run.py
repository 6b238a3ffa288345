"""The paper's benchmarks through lmms-eval, one process a benchmark, and their scores beside the paper's.

    fusionvl eval --tasks paper --model NAME_OR_PATH --output runs/paper

A benchmark that fails does not stop the others; started again, finished ones are read, and an interrupted one goes on
where it stopped. Knows lmms-eval's command line and files; imports nothing of it.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fusionvl.engine.sources import shipped_model
from fusionvl.eval.paper_table import COLUMNS, PAPER_ROWS
from fusionvl.eval.paper_tasks import DEFAULT_JUDGE, PAPER_TASKS, PaperMetric, PaperTask
from fusionvl.eval.sample_file import replace_file
from fusionvl.eval.tables import Table

_FAILED_JUDGE = re.compile(
    r"Attempt 1 failed with error|All \d+ attempts failed|failed to get a score|Error for Question ID"
    r"|Server evaluation failed|Get error"
)
_FAILED_RUN = re.compile(r"Error during evaluation: (.*?)\. Please set `--verbosity=DEBUG`", re.DOTALL)
_COLOURS = re.compile(r"\x1b\[\d+m")


@dataclass(frozen=True)
class PaperScore:
    """What came of one benchmark.

    Attributes:
        task: The benchmark.
        values: Column of the paper's table -> score, in the paper's unit.
        trouble: Why a column has no score, or what to hold against the scores; empty when there is nothing.
        judge: The judge's name, when one was asked.
    """

    task: PaperTask
    values: Mapping[str, float] = field(default_factory=dict)
    trouble: str = ""
    judge: str | None = None


def run_paper_tasks(
    output: Path,
    *,
    model: str | Path | None = None,
    limit: int | None = None,
    batch_size: int = 16,
    num_latents: int | None = None,
    dtype: str = "auto",
    device: str = "auto",
    processes: int = 1,
    tasks: Sequence[PaperTask] = PAPER_TASKS,
    include_path: Path | None = None,
) -> list[PaperScore]:
    """Score a model on the paper's benchmarks.

    Args:
        output: Folder of the results, with one folder a benchmark.
        model: Hub name or folder; None is the shipped model.
        limit: Ask only the first so many questions of each benchmark: to try it out, such scores mean nothing.
        batch_size: Questions of a batch.
        num_latents: Latent tokens of each question; None is the processor's default.
        dtype: As for `FusionEngine.from_pretrained`.
        device: A torch device, or `auto`: a GPU when there is one.
        processes: How many share a benchmark's questions, with a GPU each where there are GPUs.
        tasks: The benchmarks.
        include_path: A folder with further definitions of tasks.

    Raises:
        ValueError: When the output holds results of other settings, or a path cannot be told to lmms-eval.
        ModuleNotFoundError: When lmms-eval is not installed; with how to install it.
    """
    settings = {
        "model": str(model if model is not None else shipped_model()),
        "weights": _weights(Path(model if model is not None else shipped_model())),
        "limit": limit,
        "num_latents": num_latents,
        "dtype": dtype,
        "lmms_eval": _lmms_eval_version(),
    }
    for name, text in {"model": settings["model"], "output": str(output)}.items():
        if "," in str(text):
            raise ValueError(f"The {name} {text} has a comma in its name, which lmms-eval cannot take: rename it")
    _keep_settings(output / "settings.json", settings)
    scores = []
    with tqdm(tasks, unit="benchmark") as progress:
        for task in progress:
            progress.set_description(task.task)
            folder = output / task.task
            judge = _judge_of(task)
            if judge and not _may_ask_judge():
                reason = f"not run: needs the judge {judge}, and OPENAI_API_KEY is not set"
                scores.append(PaperScore(task, trouble=reason))
                continue
            if _results_file(folder) is None:
                command = _command(task, folder, settings, batch_size, device, processes, include_path)
                _run(command, folder, on_cpu=device == "cpu")
            scores.append(read_score(task, folder, judge))
    return scores


def read_score(task: PaperTask, folder: Path, judge: str | None = None) -> PaperScore:
    """Read what lmms-eval wrote into a benchmark's folder.

    Args:
        task: The benchmark.
        folder: Its folder.
        judge: The judge that was asked, if any.
    """
    log = folder / "log.txt"
    text = _COLOURS.sub("", log.read_text(errors="replace")) if log.exists() else ""
    path = _results_file(folder)
    if path is None:
        reason = _FAILED_RUN.findall(text)
        return PaperScore(
            task, trouble=f"failed: {reason[-1].splitlines()[0]} ({log})" if reason else f"failed: see {log}"
        )
    results = json.loads(path.read_text())["results"][task.task]
    values, troubles = {}, []
    for metric in task.metrics:
        try:
            values[metric.column] = metric.factor * _value(metric, results, path)
        except ValueError as error:
            troubles.append(f"{metric.column}: {error}")
    if judge and (failures := len(_FAILED_JUDGE.findall(text))):
        troubles.append(
            f"{failures} times the judge failed, and lmms-eval counts such answers as wrong or by chance: see {log}"
        )
    return PaperScore(task, values, "; ".join(troubles), judge)


def paper_report(scores: Sequence[PaperScore], name: str, *, limit: int | None = None) -> Table:
    """The scores as a table, one benchmark a row, beside the paper's.

    Args:
        scores: From `run_paper_tasks`.
        name: The model's, for people.
        limit: As it was run with.
    """
    measured = {column: value for score in scores for column, value in score.values.items()}
    shown = {metric.column for score in scores for metric in score.task.metrics}
    labels = [column.label for column in COLUMNS if column.label in shown]
    rows = [
        [label, _number(measured.get(label)), *(_number(row.get(label)) for row in PAPER_ROWS.values())]
        for label in labels
    ]
    notes = [f"Only the first {limit} questions of each benchmark were asked: these are no scores."] if limit else []
    for score in scores:
        said = [score.trouble, score.task.note, f"judge {score.judge}" if score.judge else ""]
        notes.append(f"{score.task.benchmark} ({score.task.task}): {'; '.join(filter(None, said)) or 'as published'}")
    return Table("Scores by lmms-eval; the paper's rows beside them", ["benchmark", name, *PAPER_ROWS], rows, notes)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _lmms_eval_version() -> str:
    try:
        return version("lmms_eval")
    except PackageNotFoundError as error:
        raise ModuleNotFoundError(
            "The paper's benchmarks are run by lmms-eval, which needs an environment of its own: "
            "scripts/set_up_lmms_eval.sh VENV, then VENV/bin/fusionvl eval --tasks paper"
        ) from error


def _weights(model: Path) -> str | None:
    """Changes when the files of a folder's weights do; None for a name on the hub."""
    if not model.is_dir():
        return None
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(model.glob("*.safetensors"))]
    return hashlib.blake2b(json.dumps(files).encode(), digest_size=8).hexdigest()


def _keep_settings(path: Path, settings: dict[str, Any]) -> None:
    if path.exists():
        earlier = json.loads(path.read_text())
        changed = [name for name, value in settings.items() if earlier.get(name) != value]
        if changed:
            raise ValueError(
                f"{path.parent} holds results of other settings "
                f"({', '.join(f'{name} {earlier.get(name)}' for name in changed)}): choose another --output"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(settings, indent=2).encode() + b"\n")


def _judge_of(task: PaperTask) -> str | None:
    return os.environ.get("MODEL_VERSION", DEFAULT_JUDGE) if task.judge == DEFAULT_JUDGE else task.judge


def _may_ask_judge() -> bool:
    azure = os.environ.get("API_TYPE") == "azure"
    return bool(os.environ.get("AZURE_API_KEY" if azure else "OPENAI_API_KEY"))


def _command(
    task: PaperTask,
    folder: Path,
    settings: Mapping[str, Any],
    batch_size: int,
    device: str,
    processes: int,
    include_path: Path | None,
) -> list[str]:
    model_args = {
        "pretrained": settings["model"],
        "dtype": settings["dtype"],
        "num_latents": settings["num_latents"],
        "several_images": task.several_images,
        "resume": folder / "finished",
    }
    options = {
        "model": "fusionvl",
        "model_args": ",".join(f"{name}={value}" for name, value in model_args.items() if value is not None),
        "tasks": task.task,
        "batch_size": batch_size,
        "output_path": folder,
        "limit": settings["limit"],
        "device": None if device == "auto" else device,
        "include_path": include_path,
    }
    words = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [sys.executable, *(several if processes > 1 else []), "-m", "lmms_eval", *words, "--log_samples"]


def _run(command: Sequence[str], folder: Path, *, on_cpu: bool) -> None:
    """Run lmms-eval; its bars go to the terminal, the rest to a file. Its exit code says nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **({"ACCELERATE_USE_CPU": "true"} if on_cpu else {})}
    with (folder / "log.txt").open("wb") as log:
        subprocess.run(command, stdout=log, env=environment, check=False)


def _results_file(folder: Path) -> Path | None:
    found = sorted(folder.glob("*/*_results.json"))
    return found[-1] if found else None


def _value(metric: PaperMetric, results: Mapping[str, Any], path: Path) -> float:
    if metric.from_samples is not None:
        [samples] = path.parent.glob(f"{path.name.removesuffix('_results.json')}_samples_*.jsonl")
        return metric.from_samples([json.loads(line) for line in samples.read_text().splitlines()])
    value = results.get(metric.key)
    if not isinstance(value, int | float):
        raise ValueError(f"lmms-eval reports no {metric.key}, but {value!r} among {', '.join(sorted(results))}")
    return float(value)
