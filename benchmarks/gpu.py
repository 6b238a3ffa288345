"""How fast a GPU runs FUSION at its released sizes, beside what the GPU can do; random weights, no download.

    benchmarks/gpu.sh RESULTS [WHEELS]                          # everything, in nine minutes at most
    python benchmarks/gpu.py --output RESULTS --only decode-1   # one part
    python benchmarks/gpu.py --output RESULTS --preset nano --device cpu     # dry run: every part at a tiny size

Each part runs in a process of its own within a budget of seconds; what earlier parts left of theirs is added. A part
that fails or takes too long is reported with its last words and with the figures that it had by then; the others
still run. Writes `gpu.json` and the table `gpu.md`. Knows models, clocks and the time it has; knows no peers.
"""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from geometry import PRESETS, Geometry, Placement, build_fusion
from measure import count_operations, interleaved, matmul_peak, now, ratios
from peak_memory import PeakMemory
from subjects import Inputs, ask, asked_again, asked_anew, fusion_prompt, image_features
from training_subjects import OURS_CHECKPOINTED, fusion_subjects
from transformers import StaticCache

from fusionvl import FusionForConditionalGeneration
from fusionvl.engine.loading import load_placed
from fusionvl.model.model_outputs import CACHE
from fusionvl.text_table import Table

REPEATS = 5
NEW_TOKENS = 32
PREFILL_ROWS, TRAINING_ROWS, ANSWER_TOKENS = (1, 8), 8, 128

Figures = Iterator[tuple[str, float]]


@torch.inference_mode()
def question(geometry: Geometry, place: Placement) -> Figures:
    """Encoding and prefill against the matrix product peak; a second question against the first."""
    model, peak = build_fusion(geometry, "masked", place), matmul_peak(place.device, place.dtype)
    yield "matrix product peak, 10^12 operations/s", peak / 1e12
    prompt, other = (fusion_prompt(geometry, place, turns=1, seed=seed) for seed in (0, 1))
    operations = sum(count_operations(lambda: model(**prompt, logits_to_keep=1), ()))
    for rows in PREFILL_ROWS:
        seconds = timed(functools.partial(model, **repeated(prompt, rows), logits_to_keep=1), place)
        yield f"encoding and prefill, batch of {rows}, ms", 1000 * seconds
        yield f"share of the peak, batch of {rows}", rows * operations / seconds / peak
    known = functools.cache(functools.partial(image_features, model, prompt))
    subjects = {"first": asked_anew(model, prompt), "second": asked_again(model, other, known)}
    jobs = {name: functools.partial(ask, subject, 1) for name, subject in subjects.items()}
    times = interleaved(jobs, tuple(jobs), REPEATS, lambda _: None)
    for name, runs in times.items():
        yield f"{name} question, vision encoding, ms", 1000 * statistics.median(run.vision.wall for run in runs)
        yield f"{name} question, first token, ms", 1000 * statistics.median(run.first_token.wall for run in runs)
    first, second = ([run.first_token.wall for run in times[name]] for name in ("first", "second"))
    yield "second question / first question", ratios(second, first).median


@torch.no_grad()  # not in inference mode, whose tensors graphs may refuse to write to
def decode(geometry: Geometry, place: Placement, rows: int) -> Figures:
    """A decoded token against the time of reading the weights: call by call, and as one CUDA graph."""
    model, bandwidth = build_fusion(geometry, "masked", place), copy_bandwidth(place.device)
    decoder = [*model.model.language_model.layers.parameters(), *model.lm_head.parameters()]
    floor = sum(weight.nbytes for weight in decoder) / bandwidth
    yield "memory bandwidth, 10^9 bytes/s", bandwidth / 1e9
    yield "reading the decoder's weights, ms", 1000 * floor
    prompt = repeated(fusion_prompt(geometry, place, turns=1, seed=0), rows)
    # On a CPU only the tracing is tried: it shows graph breaks, and needs no compiler.
    how: dict[str, Any] = {"mode": "reduce-overhead"} if place.device.type == "cuda" else {"backend": "eager"}
    graph = torch.compile(next_token, fullgraph=True, dynamic=False, **how)
    for name, step in (("call by call", next_token), ("one graph", graph)):
        seconds, cache_bytes = decoding_time(model, prompt, step, place)
        yield f"a decoded token, {name}, ms", 1000 * seconds
        yield f"{name} / reading the weights", seconds / floor
        yield f"{name} / reading weights and cache", seconds / (floor + cache_bytes / bandwidth)


def decoding_time(
    model: FusionForConditionalGeneration, prompt: Inputs, step: Callable[..., torch.Tensor], place: Placement
) -> tuple[float, int]:
    """Median seconds of a step on a static cache, and the bytes of that cache."""
    length = prompt["input_ids"].shape[1]
    cache = StaticCache(config=model.config.text_config, max_cache_len=length + NEW_TOKENS)
    tokens = model(**prompt, **{CACHE: cache}, logits_to_keep=1).logits.argmax(-1)
    positions = torch.full_like(tokens, length)
    times = []
    for _ in range(NEW_TOKENS):
        start = now(place.device)
        tokens.copy_(step(model, tokens, positions, cache))  # out of the graph's memory, which the next step reuses
        positions += 1
        times.append((now(place.device) - start).wall)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    return statistics.median(times[NEW_TOKENS // 2 :]), held  # the first steps compile and record


def next_token(
    model: FusionForConditionalGeneration, tokens: torch.Tensor, positions: torch.Tensor, cache: StaticCache
) -> torch.Tensor:
    """The most likely tokens (B, 1) after tokens (B, 1)."""
    return model(input_ids=tokens, position_ids=positions, **{CACHE: cache}, use_cache=True).logits.argmax(-1)


def training(geometry: Geometry, place: Placement) -> Figures:
    """A step under checkpointing; its share of the peak counts no product twice."""
    subject = fusion_subjects(geometry, "masked", place, TRAINING_ROWS, ANSWER_TOKENS)[OURS_CHECKPOINTED]
    peak = matmul_peak(place.device, place.dtype)
    with torch.no_grad():
        forward = sum(count_operations(subject.loss, ()))
    subject.step()  # from now on the optimizer has its state
    memory = PeakMemory(place.device)
    steps = [subject.step() for _ in range(REPEATS)]
    for part in ("forward", "backward", "optimizer", "whole"):
        yield f"{part}, ms", 1000 * statistics.median(getattr(step, part).wall for step in steps)
    seconds = statistics.median(step.whole.wall for step in steps)
    yield "tokens/s of the decoder", subject.tokens / seconds
    yield "share of the peak", 3 * forward / seconds / peak  # the backward pass has two products for each
    yield "memory beyond weights and optimizer state, GiB", memory.growth() / 2**30


@torch.inference_mode()
def narrow(geometry: Geometry, place: Placement, bits: str) -> Figures:
    """A token decoded from weights in fewer bits, loaded as users load them, against the whole weights."""
    with tempfile.TemporaryDirectory() as folder:
        whole = build_fusion(geometry, "masked", place)
        whole.save_pretrained(folder)
        device = str(place.device)
        models = {"bfloat16": whole, bits: load_placed(folder, "bfloat16", device, bits)}
    prompt = fusion_prompt(geometry, place, turns=1, seed=0)
    models[bits].generation_config.eos_token_id = None
    jobs = {name: functools.partial(ask, asked_anew(model, prompt), NEW_TOKENS) for name, model in models.items()}
    times = interleaved(jobs, tuple(jobs), REPEATS, lambda _: None)
    for name, model in models.items():
        yield f"weights in {name}, GiB", model.get_memory_footprint() / 2**30
        yield f"first token, {name}, ms", 1000 * statistics.median(run.first_token.wall for run in times[name])
        yield f"a decoded token, {name}, ms", 1000 * statistics.median(run.token.wall for run in times[name])


@dataclass(frozen=True)
class Part:
    """One thing to measure: at which size, in how many seconds at least, by what."""

    preset: str
    seconds: int
    measure: Callable[[Geometry, Placement], Figures]


PARTS = {
    "question": Part("8b", 75, question),
    "decode-1": Part("8b", 120, functools.partial(decode, rows=1)),
    "training": Part("3b", 80, training),
    "decode-32": Part("8b", 120, functools.partial(decode, rows=32)),
    "int8": Part("3b", 55, functools.partial(narrow, bits="int8")),
    "int4": Part("3b", 55, functools.partial(narrow, bits="int4")),
}


def repeated(prompt: Inputs, rows: int) -> Inputs:
    """A batch of the same question; time does not depend on what is asked."""
    return {name: torch.cat([tensor] * rows) for name, tensor in prompt.items()}


def timed(run: Callable[[], object], place: Placement) -> float:
    """Median seconds of a run, after one that warms up."""
    run()
    times = []
    for _ in range(REPEATS):
        start = now(place.device)
        run()
        times.append((now(place.device) - start).wall)
    return statistics.median(times)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes read and written a second by a large copy, the best of several."""
    source = torch.zeros(2**32 if device.type == "cuda" else 2**25, dtype=torch.uint8, device=device)
    target, times = torch.empty_like(source), []
    for _ in range(REPEATS + 1):
        start = now(device)
        target.copy_(source)
        times.append((now(device) - start).wall)
    return 2 * source.nbytes / min(times[1:])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder for gpu.json and gpu.md")
    add("--seconds", type=float, default=520, help="for all parts together")
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    add("--preset", choices=PRESETS, help="in place of the parts' own sizes")
    add("--device", default="cuda", help="cuda, cuda:N or cpu")
    add("--child", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_here(options.child, options)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + options.seconds
    report: dict[str, Any] = {
        "settings": {"device": device_name(options.device), "torch": torch.__version__,
                     "transformers": transformers.__version__},
    }  # fmt: skip
    for index, name in enumerate(options.only):
        later = sum(PARTS[other].seconds for other in options.only[index + 1 :])
        report[name] = run_apart(name, sys.argv[1:], max(1.0, deadline - later - time.monotonic()))
        (options.output / "gpu.json").write_text(json.dumps(report, indent=2) + "\n")
    table = table_of(report).render("markdown")
    (options.output / "gpu.md").write_text(table)
    print(table)
    sys.exit(any(report[name]["problem"] for name in options.only))


def device_name(device: str) -> str:
    """What the device calls itself."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def run_here(name: str, options: argparse.Namespace) -> None:
    """Measure one part in this process; each figure is a line as soon as it is known."""
    part, place = PARTS[name], Placement(torch.device(options.device), torch.bfloat16, "sdpa")
    for what, value in part.measure(PRESETS[options.preset or part.preset], place):
        print(json.dumps([what, value]), flush=True)


def run_apart(name: str, arguments: list[str], seconds: float) -> dict[str, Any]:
    """Measure one part in a fresh process; its figures so far, and how it ended if not well."""
    start, problem = time.monotonic(), None
    with tempfile.TemporaryFile("w+") as figures, tempfile.TemporaryFile("w+") as words:
        command = [sys.executable, __file__, *arguments, "--child", name]
        try:
            code = subprocess.run(command, stdout=figures, stderr=words, timeout=seconds, check=False).returncode
            if code:
                words.seek(0)
                problem = (words.read().strip().splitlines() or [f"exit status {code}"])[-1]
        except subprocess.TimeoutExpired:
            problem = f"not done in its {seconds:.0f} s"
        figures.seek(0)
        found = dict(json.loads(line) for line in figures if line.startswith("["))
    print(f"... {name}: {problem or 'done'}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return {"figures": found, "problem": problem}


def table_of(report: dict[str, Any]) -> Table:
    """All figures and problems, in the order of the parts."""
    settings, *parts = report.items()
    rows = []
    for name, part in parts:
        rows += [(name, what, f"{value:.4g}") for what, value in part["figures"].items()]
        rows += [(name, part["problem"], "failed")] if part["problem"] else []
    title = ", ".join(f"{name} {value}" for name, value in settings[1].items())
    return Table(title, ("part", "figure", "value"), rows, text_columns=2)


if __name__ == "__main__":
    main()
