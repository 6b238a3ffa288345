"""The full-size rehearsal: a released model's folder with random weights, loaded and asked as a user would.

    python benchmarks/rehearsal.py --preset 3b                        # FUSION 3B; needs its room on disk and in memory
    python benchmarks/rehearsal.py --preset x-8b --quantize int8
    python benchmarks/rehearsal.py --preset tiny --shard-bytes 2000000
    python benchmarks/rehearsal.py --preset 3b --folder models --keep # writes models/3b, for further runs to use

Writes the folder as the hub has it, then runs `fusionvl ask` on a photograph in a process of its own and watches its
memory; a second process loads the same folder through `FusionEngine` and tells the time to load, to the first token
and of each further token. Neither may use the network. Weights were just written, so loading finds them in the page
cache as far as they fit. Needs Linux, whose /proc tells memory. Knows the command and the engine from outside only.
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from released_folder import PRESETS, SHARD_BYTES, folder_bytes, is_written, released_shapes, write_released_folder
from transformers import StoppingCriteria

from fusionvl.engine.engine import FusionEngine, conversation
from fusionvl.engine.options import positive, quiet_transformers

QUESTIONS = ("What is in the picture?", "Which colors does it have?", "How many people are there?")
PHOTO_SIZE = (4000, 3000)
SAMPLE_SECONDS = 0.02
# What loading and answering may take at most, as a share of the weights in bfloat16; and what python takes itself.
MEMORY_SHARE = {None: 1.15, "int8": 0.65, "int4": 0.45}
RUNTIME_BYTES = 10**9
FIELDS_OF_STATUS = {"VmHWM": "peak", "RssAnon": "own", "RssFile": "mapped"}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    quiet_transformers()
    if options.child:
        print(json.dumps(measure_engine(**options.child)))
        return 0
    try:
        report = rehearse(options)
    except ValueError as error:
        print(f"rehearsal: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"rehearsal: {error}\n{error.stderr}", file=sys.stderr)
        return 1
    print_report(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="3b")
    add("--quantize", choices=[name for name in MEMORY_SHARE if name], help="as for `fusionvl ask`")
    add("--dtype", choices=["auto", "float32", "bfloat16", "float16"], help="as for `fusionvl ask`")
    add("--folder", type=Path, help="where the model's folder goes (default: where temporary files go)")
    add("--keep", action="store_true", help="leave the model's folder there")
    add("--shard-bytes", type=positive, default=SHARD_BYTES, help="bound on the weights of one file")
    add("--new-tokens", type=positive, default=16, help="of each answer")
    add("--questions", type=int, choices=range(1, len(QUESTIONS) + 1), default=1, help="about the one photograph")
    add("--json", type=Path, help="file for the results")
    add("--child", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def rehearse(options: argparse.Namespace) -> dict[str, Any]:
    """Write, ask, measure; what was written is removed unless it is to be kept.

    Raises:
        ValueError: When there is no room for it, or the folder holds something else.
        subprocess.CalledProcessError: When a measured process failed.
    """
    if sys.platform != "linux":
        raise ValueError(f"Memory is read from /proc, which {sys.platform} does not have: run it on Linux")
    preset = PRESETS[options.preset]
    shapes = released_shapes(preset)
    home = options.folder or Path(tempfile.gettempdir())
    model = home / (options.preset if options.folder else f"fusion-{options.preset}-{os.getpid()}")
    written = is_written(preset, model)
    if model.exists() and not written:
        raise ValueError(f"{model} exists and is not a whole folder of the preset {options.preset}: remove it first")
    check_room(options, folder_bytes(shapes), home, written)
    photo = model.with_name(f"{model.name}.jpg")
    try:
        start = time.perf_counter()
        if not written:
            progress(f"writing {model}")
            write_released_folder(preset, model, shapes, options.shard_bytes)
        seconds = time.perf_counter() - start
        write_photo(photo)
        return settings(options, folder_bytes(shapes), model, seconds) | measure(options, model, photo)
    finally:
        if options.keep:
            progress(f"kept: {model}, {photo}")
        else:
            shutil.rmtree(model, ignore_errors=True)
            photo.unlink(missing_ok=True)


def check_room(options: argparse.Namespace, weights: int, home: Path, written: bool) -> None:
    """See that the disk and the memory suffice before anything is written.

    Raises:
        ValueError: When they do not; with what is needed.
    """
    home.mkdir(parents=True, exist_ok=True)
    disk = 0 if written else weights + weights // 20
    memory = int(MEMORY_SHARE[options.quantize] * weights) * (2 if options.dtype == "float32" else 1) + RUNTIME_BYTES
    free = shutil.disk_usage(home).free
    available = status_bytes(Path("/proc/meminfo"))["MemAvailable"]
    if free < disk or available < memory:
        raise ValueError(
            f"The preset {options.preset} needs {in_gb(disk)} on disk and {in_gb(memory)} of memory; {home} has "
            f"{in_gb(free)} free, {in_gb(available)} of memory are available: choose another --folder, a smaller "
            f"--preset or --quantize"
        )


def write_photo(path: Path) -> None:
    """Write a picture of a photograph's size: a gradient under noise."""
    width, height = PHOTO_SIZE
    noise = np.random.default_rng(0).integers(0, 32, (height, width, 3), dtype=np.uint8)
    noise[..., 0] += np.linspace(0, 220, width, dtype=np.uint8)
    noise[..., 1] += np.linspace(0, 220, height, dtype=np.uint8)[:, None]
    Image.fromarray(noise).save(path, quality=90)


def settings(options: argparse.Namespace, weights: int, model: Path, seconds: float) -> dict[str, Any]:
    """What was asked for and written."""
    return {
        "preset": options.preset, "quantize": options.quantize, "dtype": options.dtype,
        "new_tokens": options.new_tokens, "questions": options.questions, "weights_bytes": weights,
        "shards": len(list(model.glob("*.safetensors"))), "write_seconds": seconds,
        "threads": torch.get_num_threads(), "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip


def measure(options: argparse.Namespace, model: Path, photo: Path) -> dict[str, Any]:
    """Run the command and the engine, each in a process of its own."""
    questions = list(QUESTIONS[: options.questions])
    chosen = {name: getattr(options, name) for name in ("quantize", "dtype") if getattr(options, name) is not None}
    progress("fusionvl ask")
    flags = [text for name, value in chosen.items() for text in (f"--{name}", value)]
    ask = watch(
        "-m", "fusionvl", "ask", str(photo), *questions, "--model", str(model), "--max-new-tokens",
        str(options.new_tokens), *flags,
    )  # fmt: skip
    progress("FusionEngine")
    spec = {"model": str(model), "photo": str(photo), "questions": questions, "new_tokens": options.new_tokens}
    engine = watch(__file__, "--child", json.dumps(spec | {"loading": chosen}))
    return {
        "answer": ask.output.removeprefix(f"> {questions[0]}\n").strip(),
        "ask": {"seconds": ask.seconds, "peak_bytes": ask.peak_bytes},
        "engine": json.loads(engine.output.splitlines()[-1]) | {"peak_bytes": engine.peak_bytes},
    }


@dataclass
class Watched:
    """A process that has ended well.

    Attributes:
        output: What it printed.
        seconds: From its start to its end.
        peak_bytes: The most it had in memory: in all, of its own, and mapped from files.
    """

    output: str = ""
    seconds: float = 0.0
    peak_bytes: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(FIELDS_OF_STATUS.values(), 0))

    def sample(self, process_id: int) -> None:
        """Note what the process has in memory now."""
        now = status_bytes(Path(f"/proc/{process_id}/status"))  # without these fields once it has ended
        for field, name in FIELDS_OF_STATUS.items():
            self.peak_bytes[name] = max(self.peak_bytes[name], now.get(field, 0))


def watch(*arguments: str) -> Watched:
    """Run this python with arguments and without the network, sampling its memory.

    Raises:
        subprocess.CalledProcessError: When it failed.
    """
    command = [sys.executable, *arguments]
    watched, start = Watched(), time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    ) as process:  # fmt: skip
        try:
            while True:
                watched.sample(process.pid)
                try:
                    watched.output, errors = process.communicate(timeout=SAMPLE_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()
    watched.seconds = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, watched.output, errors)
    return watched


def status_bytes(path: Path) -> dict[str, int]:
    """The sizes in a status file of /proc."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3 and words[2] == "kB"}


def measure_engine(
    model: str, photo: str, questions: list[str], new_tokens: int, loading: dict[str, Any]
) -> dict[str, Any]:
    """Load and ask through the engine, with a look at the clock at each token; runs in a process of its own."""
    start = time.perf_counter()
    engine = FusionEngine.from_pretrained(model, **loading)
    report: dict[str, Any] = {"load_seconds": time.perf_counter() - start, "answers": []}
    for question in questions:
        clock, start = TokenTimes(), time.perf_counter()
        pieces = engine.stream(
            conversation(photo, question), max_new_tokens=new_tokens, min_new_tokens=new_tokens,
            stopping_criteria=[clock],
        )  # fmt: skip
        text, times = "".join(pieces), clock.times
        rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else None
        report["answers"].append(
            {"text": text, "tokens": len(times), "first_token_seconds": times[0] - start, "tokens_per_second": rate}
        )
    return report | {"dtype": str(engine.model.dtype), "device": str(engine.model.device)}


class TokenTimes(StoppingCriteria):
    """Notes when each token is there; stops nothing."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Called by `generate` after each token."""
        self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def print_report(report: dict[str, Any]) -> None:
    weights, peaks, engine = report["weights_bytes"], report["ask"]["peak_bytes"], report["engine"]
    first, *later = engine["answers"]
    row = {
        "preset": report["preset"], "quantize": report["quantize"] or "no", "weights GB": f"{weights / 1e9:.2f}",
        "shards": report["shards"], "write s": f"{report['write_seconds']:.1f}",
        "load s": f"{engine['load_seconds']:.1f}", "peak/weights": f"{peaks['peak'] / weights:.2f}",
        "own": f"{peaks['own'] / weights:.2f}", "mapped": f"{peaks['mapped'] / weights:.2f}",
        "first token s": f"{first['first_token_seconds']:.2f}",
        "tokens/s": "-" if first["tokens_per_second"] is None else f"{first['tokens_per_second']:.2f}",
    }  # fmt: skip
    widths = {name: max(len(name), len(str(value))) for name, value in row.items()}
    print("  ".join(f"{name:>{width}}" for name, width in widths.items()))
    print("  ".join(f"{value!s:>{widths[name]}}" for name, value in row.items()))
    for number, answer in enumerate(later, start=2):
        print(f"question {number}, the picture's features kept: first token s {answer['first_token_seconds']:.2f}")
    print(f"fusionvl ask answered in {report['ask']['seconds']:.1f} s in all: {report['answer'][:60]!r}")


def in_gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def progress(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
