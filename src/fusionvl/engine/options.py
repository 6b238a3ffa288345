"""Command-line options that every command with an engine shares, and the engine they ask for.

Knows argparse and the engine; rooms to the right use it for their own commands.
"""

import argparse
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fusionvl.engine.engine import FusionEngine


def add_engine_options(parser: argparse.ArgumentParser, *, generation: bool = True) -> None:
    """Add `--model`, `--num-latents`, `--dtype`, `--device` and `--quantize`; with `generation` `--max-new-tokens`."""
    parser.add_argument("--model", metavar="NAME_OR_PATH", help="hub name or folder (default: the shipped model)")
    parser.add_argument("--num-latents", metavar="N", type=int, help="latent tokens per question, a square number")
    add_loading_options(parser)
    if generation:
        parser.add_argument("--max-new-tokens", metavar="N", type=positive, default=512, help="bound on an answer")


def add_loading_options(parser: argparse.ArgumentParser) -> None:
    """Add `--dtype`, `--device` and `--quantize`: how a model is loaded."""
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", "float32", "bfloat16", "float16"],
        help="the weights' number format",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--quantize", choices=["int8", "int4"], help="hold the weights in fewer bits: less memory")


def positive(text: str) -> int:
    """Parse a whole number of at least 1, as an argparse type.

    Raises:
        argparse.ArgumentTypeError: When it is less.
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def check_image(options: argparse.Namespace) -> None:
    """Read the picture once: a mistake in its path is told before a model is loaded, or downloaded.

    Raises:
        ValueError: When it cannot be used; with path and reason.
    """
    from fusionvl.processing import load_image

    load_image(options.image)


def engine_from(options: argparse.Namespace) -> "FusionEngine":
    """Load the engine that the options of `add_engine_options` name.

    Raises:
        ValueError: When there is no such model, or it cannot be loaded; with the reason.
    """
    from fusionvl.engine.engine import FusionEngine

    quiet_transformers()
    return FusionEngine.from_pretrained(
        options.model, dtype=options.dtype, device=options.device, quantize=options.quantize
    )


def quiet_transformers() -> None:
    """Let transformers show neither warnings nor bars: a command's output is its own."""
    from transformers.utils import logging as transformers_logging

    quiet_bitsandbytes()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def quiet_bitsandbytes() -> None:
    """Let bitsandbytes not ask for a package that would fetch a kernel from the hub: it has one of its own."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
