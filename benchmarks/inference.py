"""How fast FUSION answers, where the time goes, and how that compares; with random weights, no download.

    python benchmarks/inference.py                                    # mid-size model, on the CPU or the GPU there is
    python benchmarks/inference.py --preset 8b --device cuda --json speed.json
    python benchmarks/inference.py --compare-attention                # also: which attention, which dtype

Everything is measured in one process in interleaved rounds after a warm-up, and compared as ratios within a
round; only peak memory on a CPU comes from fresh processes, one for each model. `original-style` is our
reconstruction of the released code's procedure (`original_style.py`), not that code. LLaVA is transformers' own, with
an encoder and a decoder of the same sizes.
"""

import argparse
import dataclasses
import functools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import torch
from geometry import Geometry, Placement, build_fusion
from measure import Spread, Stages, count_operations, interleaved, matmul_peak, print_spreads, ratios
from options import DTYPES, geometry_of, placement_of, print_settings, progress, settings, speed_options
from original_style import share_weights
from peak_memory import PeakMemory
from subjects import (
    LLAVA_BASE,
    LLAVA_FIVE,
    MODES,
    ORIGINAL,
    ORIGINAL_TURN,
    Inputs,
    Subject,
    ask,
    asked_anew,
    first,
    fusion_prompt,
    fusion_subjects,
    later_turn,
    llava_subjects,
    named_subjects,
    second,
)

VISION_PARTS = tuple(
    f"FusionForConditionalGeneration.model.{part}" for part in ("vision_tower", "vision_to_text", "text_to_vision")
)
EXACT = 1e-3  # float32: largest difference of logits that rounding explains
Results = dict[str, list[Stages]]


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    geometry, place, mine = geometry_of(options), placement_of(options), options.early_guidance
    if options.memory_of:
        subjects = named_subjects(options.memory_of, geometry, mine, place)
        print(json.dumps(memory_in_this_process(subjects, options)))
        return
    report = {"settings": settings(geometry, place, options)}
    print_settings(report["settings"])
    subjects = {**fusion_subjects(geometry, mine, place), **llava_subjects(geometry, place)}
    jobs = {name: functools.partial(ask, subject, options.new_tokens) for name, subject in subjects.items()}
    results = interleaved(jobs, (first(mine), ORIGINAL, LLAVA_BASE), options.repeats, progress)
    report["stages"] = print_stages(results)
    report["ratios"] = print_ratios(results, options)
    report["checks"] = print_checks(subjects, place, options)
    report["matmul"] = print_matmul_share(subjects, results, place, options)
    report["memory"] = print_memory(subjects, place, options, arguments)
    if options.compare_attention:
        del subjects, jobs
        report["attention"] = print_attention(geometry, place, options)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = speed_options(__doc__, "released", "the FUSION compared with the original-style procedure and with LLaVA")
    parser.add_argument("--new-tokens", type=int, default=16, help="tokens of an answer, at least 2")
    options = parser.parse_args(arguments)
    if options.new_tokens < 2 or options.repeats < 1:
        parser.error("--new-tokens must be at least 2 and --repeats at least 1")
    return options


def print_stages(results: Results) -> dict[str, Any]:
    print("\nSTAGES: median [least .. greatest]", flush=True)
    print(f"{'':<34}{'vision, ms':>26}{'prefill, ms':>26}{'first token, ms':>26}{'decode, tokens/s':>26}")
    table = {}
    for name, runs in results.items():
        columns = {
            "vision_ms": Spread.of([1000 * run.vision for run in runs]),
            "prefill_ms": Spread.of([1000 * run.prefill for run in runs]),
            "first_token_ms": Spread.of([1000 * run.first_token for run in runs]),
            "decode_tokens_per_s": Spread.of([run.decode_rate for run in runs]),
        }
        print(f"{name:<34}" + "".join(f"{spread.show(0):>26}" for spread in columns.values()))
        table[name] = {column: dataclasses.asdict(spread) for column, spread in columns.items()}
    return table


def print_ratios(results: Results, options: argparse.Namespace) -> dict[str, Any]:
    print(
        "\nRATIOS: median [least .. greatest]; vision encoding + prefill unless said; below 1 is faster",
        flush=True,
    )
    mine = options.early_guidance
    pairs = [(second(mode), first(mode)) for mode in MODES]
    pairs += [(first(mine), ORIGINAL), (second(mine), ORIGINAL), (later_turn(mine), ORIGINAL_TURN)]
    pairs += [(question(mine), llava) for llava in (LLAVA_BASE, LLAVA_FIVE) for question in (first, second)]
    table = {}
    for top, bottom in pairs:
        spread = ratios([run.first_token for run in results[top]], [run.first_token for run in results[bottom]])
        table[f"{top} / {bottom}"] = spread
    for llava in (LLAVA_BASE, LLAVA_FIVE):  # somebody who keeps LLaVA's image features pays for its prefill alone
        spread = ratios([run.first_token for run in results[second(mine)]], [run.prefill for run in results[llava]])
        table[f"{second(mine)} / {llava}, its prefill alone"] = spread
    for mode in MODES:
        top, bottom = ([run.vision for run in results[name(mode)]] for name in (second, first))
        table[f"{second(mode)} / {first(mode)}, vision encoding alone"] = ratios(top, bottom)
    for llava in (LLAVA_BASE, LLAVA_FIVE):
        rates = ratios([run.decode_rate for run in results[llava]], [run.decode_rate for run in results[first(mine)]])
        table[f"{first(mine)} / {llava}, time of a decoded token"] = rates
    return print_spreads(table)


@torch.inference_mode()
def print_checks(subjects: dict[str, Subject], place: Placement, options: argparse.Namespace) -> dict[str, float]:
    """Hold that what is compared computes the same; otherwise its speed means nothing."""
    print("\nCHECKS: largest difference of prefill logits", flush=True)
    mine = options.early_guidance
    original, original_turn, turn = (subjects[name] for name in (ORIGINAL, ORIGINAL_TURN, later_turn(mine)))
    expected, expected_turn = logits(original), logits(original_turn)
    differences = {
        "original-style - ours, one turn": expected - logits(subjects[first(mine)]),
        "original-style - ours, turns": expected_turn - logits(turn),
        "features encoded - features kept": logits(turn, original_turn.question()) - logits(turn),
    }
    table = {name: float(difference.abs().max()) for name, difference in differences.items()}
    for name, value in table.items():
        print(f"{name:<60}{value:>12.2e}")
    print(f"{'largest logit':<60}{float(expected.abs().max()):>12.2e}")
    if place.dtype == torch.float32 and max(table.values()) > EXACT:
        sys.exit(f"The procedures disagree by more than {EXACT}: their times cannot be compared")
    return table


def logits(subject: Subject, inputs: Inputs | None = None) -> torch.Tensor:
    """Of all positions; for the subject's own question, or for inputs as they are given."""
    return subject.model(**(subject.question() if inputs is None else inputs)).logits.float()


@torch.inference_mode()
def print_matmul_share(
    subjects: dict[str, Subject], results: Results, place: Placement, options: argparse.Namespace
) -> dict[str, float]:
    print("\nMATRIX PRODUCTS: share of the measured peak in the best first question", flush=True)
    subject, runs = (by_name[first(options.early_guidance)] for by_name in (subjects, results))
    prompt = subjects[ORIGINAL].question()
    in_vision, in_prefill = count_operations(lambda: subject.model(**prompt, logits_to_keep=1), VISION_PARTS)
    peak = matmul_peak(place.device, place.dtype)
    vision, rest = (min(getattr(run, stage) for run in runs) for stage in ("vision", "prefill"))
    table = {
        "peak_operations_per_s": peak,
        "vision_share": in_vision / vision / peak,
        "prefill_share": in_prefill / rest / peak,
    }
    print(f"{'measured peak, 10^9 operations/s':<60}{peak / 1e9:>12.0f}")
    print(f"{f'vision encoding, {in_vision / 1e9:.1f} 10^9 operations':<60}{table['vision_share']:>12.3f}")
    print(f"{f'prefill, {in_prefill / 1e9:.1f} 10^9 operations':<60}{table['prefill_share']:>12.3f}")
    return table


def print_memory(
    subjects: dict[str, Subject], place: Placement, options: argparse.Namespace, arguments: Sequence[str]
) -> dict[str, int]:
    print("\nPEAK MEMORY of one answer, beyond weights and kept features, MiB", flush=True)
    mine, table = options.early_guidance, {}
    if not PeakMemory.is_known(place.device):
        print("not measured: this system does not tell a process's peak memory in /proc")
        return table
    for names in ((first(mine), second(mine), ORIGINAL), (LLAVA_BASE, LLAVA_FIVE)):
        progress(f"memory: {'; '.join(names)}")
        if place.device.type == "cuda":
            table |= memory_in_this_process({name: subjects[name] for name in names}, options)
        else:
            table |= memory_in_a_fresh_process(names, arguments)
    for name, growth in table.items():
        print(f"{name:<60}{growth / 2**20:>12.1f}")
    return table


def memory_in_this_process(subjects: dict[str, Subject], options: argparse.Namespace) -> dict[str, int]:
    table = {}
    for name, subject in subjects.items():
        with torch.inference_mode():
            subject.prepare()
        memory = PeakMemory(subject.model.device)
        ask(subject, options.new_tokens)
        table[name] = memory.growth()
    return table


def memory_in_a_fresh_process(names: Sequence[str], arguments: Sequence[str]) -> dict[str, int]:
    command = [sys.executable, __file__, *arguments, "--memory-of", *names]
    # Blocks go back to the system as soon as they are free: the high-water mark shows what was in use at once.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)


def print_attention(geometry: Geometry, place: Placement, options: argparse.Namespace) -> dict[str, Any]:
    print("\nATTENTION: time of eager / time of sdpa, and of bfloat16 / of float32", flush=True)
    jobs = {}
    for name, dtype in DTYPES.items():
        here = dataclasses.replace(place, dtype=dtype, attention="sdpa")
        sdpa = build_fusion(geometry, options.early_guidance, here)
        eager = share_weights(sdpa)
        eager.set_attn_implementation("eager")
        prompt = fusion_prompt(geometry, here, turns=1, seed=0)
        for attention, model in (("sdpa", sdpa), ("eager", eager)):
            jobs[f"{name} {attention}"] = functools.partial(ask, asked_anew(model, prompt), options.new_tokens)
    results = interleaved(jobs, tuple(jobs), options.repeats, progress)
    pairs = [(f"{name} eager", f"{name} sdpa") for name in DTYPES]
    pairs += [(f"bfloat16 {attention}", f"float32 {attention}") for attention in ("sdpa", "eager")]
    table = {}
    for top, bottom in pairs:
        for stage in ("vision", "prefill", "first_token"):
            numerators, denominators = ([getattr(run, stage) for run in results[name]] for name in (top, bottom))
            table[f"{top} / {bottom}, {stage.replace('_', ' ')}"] = ratios(numerators, denominators)
        rates = ratios([run.decode_rate for run in results[bottom]], [run.decode_rate for run in results[top]])
        table[f"{top} / {bottom}, decoded token"] = rates
    return print_spreads(table)


if __name__ == "__main__":
    main(sys.argv[1:])
