"""How an answer's cost grows with turns, latent tokens and batch size, each beside a straight line; random weights.

    python benchmarks/growth.py --threads 1 --plot docs/performance.png

Everything is one prefill (vision encoding, decoder, logits of the last position) of the chosen geometry, `turns` with
the features of the picture kept, as `fusionvl chat` keeps them. All sizes are run in interleaved rounds. The line goes
through the first and the last size: what lies below it in the middle grows faster than a line, what lies above slower.
"""

import argparse
import dataclasses
import functools
import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from geometry import Geometry, Placement, build_fusion
from matplotlib.figure import Figure
from measure import interleaved, now
from options import geometry_of, model_options, placement_of, print_settings, progress, settings
from subjects import Inputs, fusion_prompt, image_features, with_features

from fusionvl import FusionForConditionalGeneration

SIZES = {"turns": (1, 2, 4, 8, 16), "latent tokens": (4, 16, 36, 64, 144), "batch size": (1, 2, 4, 8, 16, 32)}
WINDOW = 3  # positions of the global map along one side of a latent token's window


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    geometry, place = geometry_of(options), placement_of(options)
    report = {"settings": settings(geometry, place, options), "seconds": {}}
    print_settings(report["settings"])
    model = build_fusion(geometry, options.early_guidance, place)
    most = {"latent tokens": (2 * math.isqrt(geometry.patches) // WINDOW) ** 2, "batch size": options.largest_batch}
    for what, of_paper in SIZES.items():
        sizes = [size for size in of_paper if size <= most.get(what, size)]
        jobs = {f"{what} {size}": job(model, geometry, place, what, size) for size in sizes}
        rounds = interleaved(jobs, tuple(jobs), options.repeats, progress)
        seconds = [statistics.median(rounds[name]) for name in jobs]
        report["seconds"][what] = dict(zip(sizes, seconds, strict=True))
        print(f"\n{what}: milliseconds; time / straight line")
        for size, time, line in zip(sizes, seconds, straight(sizes, seconds), strict=True):
            print(f"{size:>6}{1000 * time:>12.1f}{time / line:>12.2f}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.plot:
        plot(report["seconds"], options.plot)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = model_options(__doc__, "mid", "masked", "when patches see the question")
    parser.add_argument("--largest-batch", type=int, default=32, help="leave larger batches out")
    parser.add_argument("--plot", type=Path, help="file for the plots")
    return parser.parse_args(arguments)


def job(
    model: FusionForConditionalGeneration, geometry: Geometry, place: Placement, what: str, size: int
) -> Callable[[], float]:
    """One prefill of a size; its seconds, on a CPU the process's own."""
    turns = size if what == "turns" else 1
    if what == "latent tokens":
        geometry = dataclasses.replace(geometry, num_latents=size)
    prompt = fusion_prompt(geometry, place, turns, seed=0)
    if what == "batch size":
        prompt = {name: torch.cat([tensor] * size) for name, tensor in prompt.items()}
    if what == "turns":
        with torch.inference_mode():
            prompt = with_features(prompt, image_features(model, prompt))
    return functools.partial(prefill, model, prompt)


@torch.inference_mode()
def prefill(model: FusionForConditionalGeneration, prompt: Inputs) -> float:
    start = now(model.device)
    model(**prompt, logits_to_keep=1)
    return (now(model.device) - start).spent(model.device)


def straight(sizes: Sequence[int], seconds: Sequence[float]) -> list[float]:
    """The line through the first and the last point, at every size."""
    slope = (seconds[-1] - seconds[0]) / (sizes[-1] - sizes[0])
    return [seconds[0] + slope * (size - sizes[0]) for size in sizes]


def plot(seconds: dict[str, dict[int, float]], path: Path) -> None:
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axes, (what, points) in zip(figure.subplots(1, len(seconds)), seconds.items(), strict=True):
        sizes, times = list(points), list(points.values())
        axes.plot(sizes, times, "o", color="#0072B2")
        axes.plot(sizes, straight(sizes, times), color="0.6", linestyle=":")
        axes.set_xlabel(what)
        axes.set_ylim(0, 1.1 * max(times))
    figure.axes[0].set_ylabel("seconds of a prefill")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1:])
