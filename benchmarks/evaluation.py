"""What it saves that questions of a benchmark about one image share its features; random weights, no download.

    python benchmarks/evaluation.py                                # mid-size, six questions an image, as POPE has
    python benchmarks/evaluation.py --preset nano --images 40 --questions 8
    python benchmarks/evaluation.py --model NAME_OR_PATH           # a model of yours instead

The same questions are asked in the runner's own batches, once with the engine's cache and once with none, in
interleaved rounds after a warm-up; times are compared as ratios within a round. Answers must be the same.
"""

import argparse
import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from geometry import PRESETS, Geometry
from measure import Spread, interleaved, print_spreads, ratios
from options import DTYPES
from PIL import Image
from subjects import MODES

from fusionvl import FusionEngine
from fusionvl.engine.engine import DEFAULT_CACHE_BYTES
from fusionvl.eval.fusion_answerer import FusionAnswerer
from fusionvl.eval.ordering import in_batches
from fusionvl.eval.task import TaskQuestion
from fusionvl.train.config import ModelFromScratch
from fusionvl.train.scratch import build_from_scratch

OBJECTS = ("dog", "chair", "traffic light", "bottle", "person", "dining table", "car", "handbag", "clock", "bird")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    torch.manual_seed(0)
    if options.threads:
        torch.set_num_threads(options.threads)
    asked = questions(options.images, options.questions)
    engine = make_engine(options, [question.prompt for question in asked])
    jobs = {
        "features shared": functools.partial(ask, engine, DEFAULT_CACHE_BYTES, asked, options),
        "every question anew": functools.partial(ask, engine, 0, asked, options),
    }
    rounds = interleaved(jobs, list(jobs), options.repeats, lambda text: print(f"... {text}", flush=True))
    report = print_report(rounds, len(asked), options)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="hub name or folder, instead of random weights")
    parser.add_argument("--preset", choices=PRESETS, default="mid")
    parser.add_argument("--early-guidance", choices=MODES, default="masked")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the choice to torch")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--questions", type=int, default=6, help="of each image")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=2, help="of an answer: yes or no and the end")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args(arguments)
    if min(options.images, options.questions, options.batch_size, options.new_tokens, options.repeats) < 1:
        parser.error("--images, --questions, --batch-size, --new-tokens and --repeats must be at least 1")
    return options


def questions(images: int, each: int) -> list[TaskQuestion]:
    """Questions as POPE asks them, about pictures of random colours."""
    generator = np.random.default_rng(0)
    asked = []
    for number in range(images):
        picture = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((640, 480))
        for k in range(each):
            prompt = f"Is there a {OBJECTS[(number + k) % len(OBJECTS)]} in the image?\nAnswer yes or no."
            asked.append(TaskQuestion(f"{number}-{k}", prompt, picture, str(number), ""))
    return asked


def make_engine(options: argparse.Namespace, texts: list[str]) -> FusionEngine:
    if options.model is not None:
        engine = FusionEngine.from_pretrained(options.model, dtype=options.dtype, device=options.device)
    else:
        geometry = PRESETS[options.preset]
        model, processor = build_from_scratch(
            spec(geometry, options.early_guidance), texts, geometry.num_latents, seed=0
        )
        engine = FusionEngine(model.to(options.device, DTYPES[options.dtype]).eval(), processor)
    engine.model.generation_config.eos_token_id = None  # answers are as long as the benchmark asks for
    return engine


def spec(geometry: Geometry, early_guidance: str) -> ModelFromScratch:
    return ModelFromScratch(
        vision={
            "hidden_size": geometry.vision_width, "intermediate_size": geometry.vision_mlp,
            "num_hidden_layers": geometry.vision_layers, "num_attention_heads": geometry.vision_heads,
            "image_size": geometry.image_size, "patch_size": geometry.patch_size,
        },
        decoder={
            "model_type": geometry.decoder, "hidden_size": geometry.decoder_width,
            "intermediate_size": geometry.decoder_mlp, "num_hidden_layers": geometry.decoder_layers,
            "num_attention_heads": geometry.decoder_heads, "num_key_value_heads": geometry.decoder_key_value_heads,
            "max_position_embeddings": 8192,
        },
        fusion={
            "early_guidance": early_guidance, "num_interaction_layers": geometry.interaction_layers,
            "interaction_stride": geometry.interaction_stride, "interaction_heads": geometry.interaction_heads,
        },
        vocab_size=512,
    )  # fmt: skip


def ask(
    engine: FusionEngine, cache_bytes: int, asked: list[TaskQuestion], options: argparse.Namespace
) -> dict[str, Any]:
    """One pass over all questions, beginning with an empty cache."""
    answerer = FusionAnswerer(FusionEngine(engine.model, engine.processor, cache_bytes), "benchmark", "random")
    start = time.perf_counter()
    answers = {
        question.id: reply.text
        for batch in in_batches(asked, options.batch_size)
        for question, reply in zip(batch, answerer.answer(batch, options.new_tokens), strict=True)
    }
    hits, misses = answerer.image_reuse()
    return {"seconds": time.perf_counter() - start, "answers": answers, "hits": hits, "misses": misses}


def print_report(rounds: dict[str, list[dict[str, Any]]], count: int, options: argparse.Namespace) -> dict[str, Any]:
    shared, anew = rounds.values()
    subject = options.model or f"preset {options.preset}, {options.early_guidance}"
    print(f"\n{subject}, {options.device}: {options.images} images, {options.questions} questions each")
    for name, passes in rounds.items():
        print(f"{name}: {passes[0]['hits']} of {count} times an image's features were known")
    print("\nTIMES: median [least .. greatest]")
    table = {
        f"{name}, questions/s": Spread.of([count / one["seconds"] for one in passes])
        for name, passes in rounds.items()
    }
    seconds = [[one["seconds"] for one in passes] for passes in (anew, shared)]
    table["speed-up: every question anew / features shared"] = ratios(*seconds)
    differing = sum(shared[0]["answers"][name] != text for name, text in anew[0]["answers"].items())
    printed = print_spreads(table)
    print(f"answers that differ: {differing} of {count}")
    return {"times": printed, "hits": shared[0]["hits"], "questions": count, "differing": differing}


if __name__ == "__main__":
    main()
