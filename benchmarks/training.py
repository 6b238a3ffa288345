"""How fast FUSION trains and in how much memory, compared with transformers' LLaVA; with random weights, no download.

    python benchmarks/training.py                                     # mid-size model, on the CPU or the GPU there is
    python benchmarks/training.py --preset 3b --device cuda --batch-size 8 --json speed.json
    python benchmarks/training.py --compare-attention --preset nano   # also: which attention, which dtype

A step is forward, backward and AdamW on float32 weights; `--dtype bfloat16` computes under autocast. All steps run in
one process in interleaved rounds after a warm-up and are compared as ratios within a round; peak memory on a CPU comes
from fresh processes, one for each model. `original-style` is our reconstruction of the released code's procedure
(`original_style.py`), with the logits of all positions at once, not that code.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

import torch
from geometry import Geometry, Placement
from measure import Time, count_operations, interleaved, matmul_peak, print_ratios, print_times
from options import DTYPES, geometry_of, placement_of, print_settings, progress, settings, speed_options
from original_style import share_weights
from peak_memory import PeakMemory, print_memory
from training_subjects import (
    LLAVA_BASE,
    LLAVA_FIVE,
    OF_LLAVA,
    ORIGINAL,
    OURS,
    OURS_CHECKPOINTED,
    StepTimes,
    Subject,
    fusion_subjects,
    llava_subjects,
    torchs_attention,
)

EXACT = 1e-4  # float32: relative difference of losses and gradients that rounding explains
COMPARED = ((OURS, ORIGINAL), (OURS, LLAVA_BASE), (OURS, LLAVA_FIVE), (OURS_CHECKPOINTED, OURS))
Results = dict[str, list[StepTimes]]


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    geometry, place = geometry_of(options), placement_of(options)
    if options.memory_of:
        subjects = subjects_of(geometry, place, options, options.memory_of)
        print(json.dumps({name: peak_of(subject) for name, subject in subjects.items()}))
        return
    report: dict[str, Any] = {"settings": settings(geometry, place, options)}
    print_settings(report["settings"])
    print(f"{options.batch_size} rows with {options.answer_tokens} labelled tokens each")
    subjects = subjects_of(geometry, place, options, names_in(COMPARED))
    report["checks"] = print_checks(subjects, place)
    results = timed(subjects, options)
    report["steps"] = print_times("STEPS", results, ("forward", "backward", "optimizer", "whole"))
    report["ratios"] = print_ratios("RATIOS OF STEP TIMES", compared(results, COMPARED))
    report["mfu"] = print_mfu(subjects, results, place)
    groups = [[name for name in subjects if (name in OF_LLAVA) == of_llava] for of_llava in (False, True)]
    title = "PEAK MEMORY of a step beyond weights and optimizer state"
    report["memory"] = print_memory(title, groups, __file__, arguments, place.device)
    del subjects
    if options.compare_attention:
        report["attention"] = print_attention(geometry, place, options)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = speed_options(__doc__, "masked", "new models are trained with `masked`")
    parser.add_argument("--batch-size", type=int, default=1, help="rows of a step, one image each")
    parser.add_argument("--answer-tokens", type=int, default=128, help="labelled tokens of a row")
    parser.add_argument("--compare-attention", action="store_true", help="time attention and number formats, too")
    options = parser.parse_args(arguments)
    if min(options.repeats, options.batch_size, options.answer_tokens) < 1:
        parser.error("--repeats, --batch-size and --answer-tokens must be at least 1")
    return options


def names_in(pairs: Sequence[tuple[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for pair in pairs for name in pair))


def subjects_of(
    geometry: Geometry, place: Placement, options: argparse.Namespace, names: Sequence[str]
) -> dict[str, Subject]:
    """The named ways to step; models that none of them needs are not built."""
    known: dict[str, Subject] = {}
    if set(names) - set(OF_LLAVA):
        known |= fusion_subjects(geometry, options.early_guidance, place, options.batch_size, options.answer_tokens)
    if set(names) & set(OF_LLAVA):
        known |= llava_subjects(geometry, place, options.batch_size, options.answer_tokens)
    return {name: known[name] for name in names}


def timed(subjects: dict[str, Subject], options: argparse.Namespace) -> Results:
    jobs = {name: subject.step for name, subject in subjects.items()}
    return interleaved(jobs, tuple(jobs), options.repeats, progress)


def print_checks(subjects: dict[str, Subject], place: Placement) -> dict[str, float]:
    """Hold that what is compared computes the same; otherwise its speed means nothing."""
    print("\nCHECKS: relative difference to our step", flush=True)
    loss, gradient = subjects[OURS].loss_and_gradient()
    table = {}
    for name in (ORIGINAL, OURS_CHECKPOINTED):
        progress(f"check: {name}")
        other_loss, other_gradient = subjects[name].loss_and_gradient()
        table[f"{name}, loss"] = abs(other_loss - loss) / abs(loss)
        table[f"{name}, gradient"] = relative_error(other_gradient, gradient)
    for name, value in table.items():
        print(f"{name:<60}{value:>12.2e}")
    if place.dtype == torch.float32 and max(table.values()) > EXACT:
        sys.exit(f"The procedures disagree by more than {EXACT}: their times cannot be compared")
    return table


def compared(results: Results, pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[list[Time], list[Time]]]:
    """Times of whole steps, by the name of their ratio."""
    return {
        f"{top} / {bottom}": ([run.whole for run in results[top]], [run.whole for run in results[bottom]])
        for top, bottom in pairs
    }


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def print_mfu(subjects: dict[str, Subject], results: Results, place: Placement) -> dict[str, float]:
    print("\nMFU: matrix products of a step without recomputation, as a share of the measured peak", flush=True)
    peak = matmul_peak(place.device, place.dtype)
    table = {"peak_operations_per_s": peak}
    print(f"{'measured peak, 10^9 operations/s':<60}{peak / 1e9:>12.0f}")
    for name in subjects:
        counted = OURS if name == OURS_CHECKPOINTED else name
        progress(f"operations: {name}")
        _, operations = count_operations(subjects[counted].step, ())
        table[name] = operations / min(run.whole.spent(place.device) for run in results[name]) / peak
        print(f"{name:<60}{table[name]:>12.3f}")
    return table


def peak_of(subject: Subject) -> int:
    subject.step()  # from now on the optimizer has its state
    memory = PeakMemory(subject.model.device)
    subject.step()
    return memory.growth()


def print_attention(geometry: Geometry, place: Placement, options: argparse.Namespace) -> dict[str, Any]:
    first = subjects_of(geometry, dataclasses.replace(place, attention="sdpa"), options, [OURS])[OURS]
    eager = share_weights(first.model)
    eager.set_attn_implementation("eager")
    subjects = {
        f"{name} {attention}": dataclasses.replace(first, model=model, compute_dtype=dtype)
        for name, dtype in DTYPES.items()
        for attention, model in (("sdpa", first.model), ("eager", eager))
    }
    whole = "bfloat16 sdpa, all of it torch's"
    subjects[whole] = dataclasses.replace(first, compute_dtype=torch.bfloat16, setting=torchs_attention)
    pairs = [("bfloat16 sdpa", whole), *((f"{name} eager", f"{name} sdpa") for name in DTYPES)]
    pairs += [(f"bfloat16 {attention}", f"float32 {attention}") for attention in ("sdpa", "eager")]
    table = print_ratios("RATIOS OF ATTENTION TIMES", compared(timed(subjects, options), pairs))
    _, exact = subjects["float32 sdpa"].loss_and_gradient()
    print("\nERROR of the gradient against float32 sdpa")
    for name, subject in subjects.items():
        table[f"{name}, error"] = relative_error(subject.loss_and_gradient()[1], exact)
        print(f"{name:<60}{table[f'{name}, error']:>12.2e}")
    return table


if __name__ == "__main__":
    main(sys.argv[1:])
