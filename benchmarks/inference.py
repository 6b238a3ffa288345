"""How fast FUSION answers, where the time goes, and how that compares; with random weights, no download.

    python benchmarks/inference.py                                    # mid-size model, on the CPU or the GPU there is
    python benchmarks/inference.py --preset 8b --device cuda --json speed.json

Everything is measured in one process in interleaved rounds after a warm-up, and compared as ratios within a
round; only peak memory on a CPU comes from fresh processes, one for each model. `original-style` is our
reconstruction of the released code's procedure (`original_style.py`), not that code. LLaVA is transformers' own, with
an encoder and a decoder of the same sizes.
"""

import argparse
import functools
import json
import sys
from collections.abc import Sequence

import torch
from geometry import EarlyGuidance, Placement
from measure import Stages, Time, count_operations, interleaved, matmul_peak, print_ratios, print_times
from options import geometry_of, placement_of, print_settings, progress, settings, speed_options
from peak_memory import PeakMemory, print_memory
from subjects import (
    LLAVA_BASE,
    LLAVA_FIVE,
    MODES,
    ORIGINAL,
    ORIGINAL_TURN,
    Inputs,
    Subject,
    ask,
    first,
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
    report["stages"] = print_times("STAGES", results, ("vision", "prefill", "first_token", "token"))
    report["ratios"] = print_ratios("RATIOS, vision encoding + prefill unless said", compared(results, mine))
    report["checks"] = print_checks(subjects, place, options)
    report["matmul"] = print_matmul_share(subjects, results, place, options)
    groups = ((first(mine), second(mine), ORIGINAL), (LLAVA_BASE, LLAVA_FIVE))
    title = "PEAK MEMORY of one answer, beyond weights and kept features"
    report["memory"] = print_memory(title, groups, __file__, arguments, place.device)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = speed_options(__doc__, "released", "the FUSION compared with the original-style procedure and with LLaVA")
    parser.add_argument("--new-tokens", type=int, default=16, help="tokens of an answer, at least 2")
    options = parser.parse_args(arguments)
    if options.new_tokens < 2 or options.repeats < 1:
        parser.error("--new-tokens must be at least 2 and --repeats at least 1")
    return options


def compared(results: Results, mine: EarlyGuidance) -> dict[str, tuple[list[Time], list[Time]]]:
    """What is set against what, by the name of its ratio."""
    pairs = [(second(mode), first(mode)) for mode in MODES]
    pairs += [(first(mine), ORIGINAL), (second(mine), ORIGINAL), (later_turn(mine), ORIGINAL_TURN)]
    pairs += [(question(mine), llava) for llava in (LLAVA_BASE, LLAVA_FIVE) for question in (first, second)]
    table = {
        f"{top} / {bottom}": ([run.first_token for run in results[top]], [run.first_token for run in results[bottom]])
        for top, bottom in pairs
    }
    for llava in (LLAVA_BASE, LLAVA_FIVE):  # somebody who keeps LLaVA's image features pays for its prefill alone
        again = [run.first_token for run in results[second(mine)]]
        table[f"{second(mine)} / {llava}, its prefill alone"] = (again, [run.prefill for run in results[llava]])
    for mode in MODES:
        top, bottom = ([run.vision for run in results[name(mode)]] for name in (second, first))
        table[f"{second(mode)} / {first(mode)}, vision encoding alone"] = (top, bottom)
    for other in (ORIGINAL, LLAVA_BASE):
        top, bottom = ([run.token for run in results[name]] for name in (first(mine), other))
        table[f"{first(mine)} / {other}, a decoded token"] = (top, bottom)
    return table


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
    vision, rest = (min(getattr(run, stage).spent(place.device) for run in runs) for stage in ("vision", "prefill"))
    table = {
        "peak_operations_per_s": peak,
        "vision_share": in_vision / vision / peak,
        "prefill_share": in_prefill / rest / peak,
        "share": (in_vision + in_prefill) / (vision + rest) / peak,
    }
    print(f"{'measured peak, 10^9 operations/s':<60}{peak / 1e9:>12.0f}")
    print(f"{f'vision encoding, {in_vision / 1e9:.1f} 10^9 operations':<60}{table['vision_share']:>12.3f}")
    print(f"{f'prefill, {in_prefill / 1e9:.1f} 10^9 operations':<60}{table['prefill_share']:>12.3f}")
    print(f"{'both':<60}{table['share']:>12.3f}")
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


if __name__ == "__main__":
    main(sys.argv[1:])
