"""What the speed benchmarks have in common on the command line and at the head of their reports."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from geometry import PRESETS, Geometry, Placement
from subjects import MODES

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def model_options(description: str, preset: str, early_guidance: str, help_text: str) -> argparse.ArgumentParser:
    """Options of every benchmark of a model; `preset` and `early_guidance` are the defaults of these options."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--preset", choices=PRESETS, default=preset, help="model sizes; the flags below change single ones")
    add("--early-guidance", choices=MODES, default=early_guidance, help=help_text)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda or cuda:N")
    add("--dtype", choices=DTYPES, help="of matrix products; default: float32 on a CPU, bfloat16 on a GPU")
    add("--attention", default="sdpa", help="transformers' attention implementation: sdpa or eager")
    add("--threads", type=int, default=0, help="CPU threads; 0 leaves the choice to torch")
    add("--repeats", type=int, default=3, help="rounds, after a warm-up of each subject")
    add("--json", type=Path, help="file for all results")
    sizes = parser.add_argument_group("sizes")
    for field in dataclasses.fields(Geometry):
        sizes.add_argument(f"--{field.name.replace('_', '-')}", type=field.type, help="default: as in the preset")
    return parser


def speed_options(description: str, early_guidance: str, early_guidance_help: str) -> argparse.ArgumentParser:
    """Options of the benchmarks that compare a model with others; `early_guidance` is the default of that option."""
    parser = model_options(description, "mid", early_guidance, early_guidance_help)
    add = parser.add_argument
    add("--memory-of", nargs="+",
        help="print only the peak memory of these subjects; the benchmark calls itself with it")  # fmt: skip
    return parser


def geometry_of(options: argparse.Namespace) -> Geometry:
    chosen = {field.name: getattr(options, field.name) for field in dataclasses.fields(Geometry)}
    changes = {name: value for name, value in chosen.items() if value is not None}
    return dataclasses.replace(PRESETS[options.preset], **changes)


def placement_of(options: argparse.Namespace) -> Placement:
    device = torch.device(options.device)
    dtype = options.dtype or ("float32" if device.type == "cpu" else "bfloat16")
    return Placement(device, DTYPES[dtype], options.attention)


def progress(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


def settings(geometry: Geometry, place: Placement, options: argparse.Namespace) -> dict[str, Any]:
    device = torch.cuda.get_device_name(place.device) if place.device.type == "cuda" else "CPU"
    return {
        "preset": options.preset, "geometry": dataclasses.asdict(geometry), "device": device,
        "dtype": str(place.dtype).removeprefix("torch."), "attention": place.attention,
        "threads": torch.get_num_threads(), "repeats": options.repeats, "compared": options.early_guidance,
        "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip


def print_settings(values: dict[str, Any]) -> None:
    print(", ".join(f"{name} {value}" for name, value in values.items() if name != "geometry"))
    print(", ".join(f"{name} {value}" for name, value in values["geometry"].items()))
