"""Runs one of the paper's benchmarks through lmms-eval, in processes of its own, and keeps its scores.

A benchmark that is finished is read; one that was interrupted goes on where it stopped. Knows lmms-eval's command
line; imports nothing of it.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from fusionvl.engine.devices import choose_device, choose_dtype
from fusionvl.engine.loading import load_config, load_processor
from fusionvl.engine.sources import shipped_model
from fusionvl.eval.benchmark_scores import keep_benchmark
from fusionvl.eval.finished_answers import FINISHED
from fusionvl.eval.fusion_answerer import how_asked
from fusionvl.eval.model_fingerprint import model_fingerprint
from fusionvl.eval.paper_tasks import DEFAULT_JUDGE, PaperTask
from fusionvl.eval.score_store import PACKAGES, RESULTS, Results, read_results
from fusionvl.run_folder import claim, writing

LOG = "log.txt"
_RESULTS_FILES = "lmms_eval/*/*_results.json"
_FAILED_JUDGE = re.compile(
    r"Attempt 1 failed with error|All \d+ attempts failed|failed to get a score|Error for Question ID"
    r"|Server evaluation failed|Get error"
)
_FAILED_RUN = re.compile(r"Error during evaluation: (.*?)\. Please set `--verbosity=DEBUG`", re.DOTALL)
_COLOURS = re.compile(r"\x1b\[\d+m")


class BenchmarkFailedError(RuntimeError):
    """lmms-eval ended without scores; others may do better."""


@dataclass(frozen=True)
class BenchmarkSettings:
    """How a model is asked, the same for all benchmarks; made by `of`.

    Attributes:
        model: Folder or hub name.
        name: The model's, for people.
        how: What the answers depend on, as for a test of our own.
        device: As torch names it.
        batch_size: Questions of a batch.
        processes: How many share the questions, with a GPU each where there are GPUs.
        limit: Ask only the first so many questions: to try it out, such scores mean nothing.
    """

    model: str
    name: str
    how: dict[str, Any]
    device: str
    batch_size: int = 16
    processes: int = 1
    limit: int | None = None

    @classmethod
    def of(
        cls,
        model: str | Path | None = None,
        *,
        dtype: str = "auto",
        device: str = "auto",
        num_latents: int | None = None,
        **settings: Any,
    ) -> "BenchmarkSettings":
        """Look at a model, which is not loaded.

        Args:
            model: Hub name or folder; None is the shipped model.
            dtype: As for `FusionEngine.from_pretrained`.
            device: A torch device, or `auto`: a GPU when there is one.
            num_latents: Latent tokens of each question; None is the processor's default.
            **settings: The others.

        Raises:
            ValueError: When there is no such model or device, or the model's path cannot be told to lmms-eval.
            ModuleNotFoundError: When lmms-eval is not installed; with how to install it.
        """
        _lmms_eval_version()
        source, place = str(model if model is not None else shipped_model()), choose_device(device)
        _check_comma("model", source)
        config, processor = load_config(source), load_processor(source)
        number_format = str(choose_dtype(dtype, config.dtype or torch.float32, place))
        how = how_asked(
            model_fingerprint(source),
            number_format.removeprefix("torch."),
            processor.num_latents if num_latents is None else num_latents,
        )
        return cls(source, str(model if model is not None else "nano"), how, str(place), **settings)


def run_benchmark(task: PaperTask, settings: BenchmarkSettings, folder: Path) -> Results:
    """Score a model on a benchmark.

    Args:
        task: The benchmark.
        settings: How the model is asked.
        folder: Of this benchmark's scores with this model; the same call goes on in it.

    Raises:
        ValueError: When the folder holds other scores, or its path cannot be told to lmms-eval.
        BenchmarkFailedError: When lmms-eval fails; with its reason.
        CannotWriteError: When the disk is full or the place cannot be written.
    """
    _check_comma("output", str(folder))
    judge = judge_of(task)
    is_begun = any(path.stat().st_size for path in (*folder.glob(f"{FINISHED}/*.jsonl"), *folder.glob(RESULTS)))
    of_task = {"task": task.name, "lmms_eval": _lmms_eval_version(), "limit": settings.limit, "judge": judge}
    told = {"model": settings.name, "batch_size": settings.batch_size, "processes": settings.processes}
    claim(folder, {**of_task, **settings.how}, told=told, packages=PACKAGES, is_begun=is_begun)
    if (folder / RESULTS).is_file():
        return read_results(folder)
    results_file = _run(_command(task, settings, folder), folder, on_cpu=settings.device == "cpu")
    log = _COLOURS.sub("", (folder / LOG).read_text(errors="replace"))
    if results_file is None:
        reasons = _FAILED_RUN.findall(log) or ["lmms-eval wrote no results"]
        raise BenchmarkFailedError(f"{task.title}: {reasons[-1].splitlines()[0]}; see {folder / LOG}")
    notes = [f"judge {judge}"] if judge else []
    if judge and (failures := len(_FAILED_JUDGE.findall(log))):
        notes.append(f"{failures} times the judge failed, and lmms-eval counts such answers as wrong or by chance")
    return keep_benchmark(task, folder, results_file, notes)


def judge_of(task: PaperTask) -> str | None:
    """The language model that scores a benchmark's answers; None when rules do."""
    return os.environ.get("MODEL_VERSION", DEFAULT_JUDGE) if task.judge == DEFAULT_JUDGE else task.judge


def may_ask_judge() -> bool:
    """Whether there is a key to ask a judge with."""
    azure = os.environ.get("API_TYPE") == "azure"
    return bool(os.environ.get("AZURE_API_KEY" if azure else "OPENAI_API_KEY"))


def _lmms_eval_version() -> str:
    try:
        return version("lmms_eval")
    except PackageNotFoundError as error:
        raise ModuleNotFoundError(
            "The paper's benchmarks are run by lmms-eval, which needs an environment of its own: "
            "scripts/set_up_lmms_eval.sh VENV, then VENV/bin/fusionvl eval ..."
        ) from error


def _check_comma(what: str, text: str) -> None:
    if "," in text:
        raise ValueError(f"The {what} {text} has a comma in its name, which lmms-eval cannot take: rename it")


def _command(task: PaperTask, settings: BenchmarkSettings, folder: Path) -> list[str]:
    model_args = {
        "pretrained": settings.model,
        "dtype": settings.how["dtype"],
        "num_latents": settings.how["num_latents"],
        "weights": settings.how["weights"],
        "several_images": task.several_images,
        "resume": folder / FINISHED,
    }
    options = {
        "model": "fusionvl",
        "model_args": ",".join(f"{name}={value}" for name, value in model_args.items()),
        "tasks": task.name,
        "batch_size": settings.batch_size,
        "output_path": folder / "lmms_eval",
        "limit": settings.limit,
        "device": settings.device,
    }
    words = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(settings.processes)]
    return [sys.executable, *(several if settings.processes > 1 else []), "-m", "lmms_eval", *words, "--log_samples"]


def _run(command: list[str], folder: Path, *, on_cpu: bool) -> Path | None:
    """Run lmms-eval and find the results it wrote; None when it failed, which its exit code need not say.

    Its bars go to the terminal, the rest to a file.
    """
    for half_written in folder.glob(_RESULTS_FILES):  # by a run that was killed; the answers themselves are kept
        half_written.unlink()
    fonts = f"{sys.prefix}/share:{os.environ.get('XDG_DATA_DIRS') or '/usr/local/share:/usr/share'}"  # MMMU needs one
    environment = {**os.environ, "XDG_DATA_DIRS": fonts, **({"ACCELERATE_USE_CPU": "true"} if on_cpu else {})}
    with writing(folder / LOG), (folder / LOG).open("wb") as log:
        code = subprocess.run(command, stdout=log, env=environment, check=False).returncode
    return next(folder.glob(_RESULTS_FILES), None) if code == 0 else None
