"""Many requests at once: FUSION in vLLM, beside the batching engine that this package once had; and a soak of vLLM.

    git worktree add ../before c3aec75                    # the last commit with an engine of its own
    python benchmarks/serving.py --before ../before       # the shipped model and a 135 M decoder, 1 to 16 clients
    python benchmarks/serving.py --soak 10                # minutes of random requests: does memory stay flat?

Both run in processes of their own on the same CPU core, in interleaved rounds after a warm-up; the one that is not
asked sleeps. Each client asks its next question when its last answer is complete. Pictures are new in every round, two
questions are about each; answers are 32 to 64 tokens long, greedy, in float32. Ratios are taken within a round:
throughput of vLLM over that of the engine. vLLM's Python is the one of scripts/set_up_vllm.sh (`.venv-vllm` unless
told otherwise).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig

from fusionvl import FusionConfig, FusionForConditionalGeneration
from fusionvl.engine.sources import shipped_model
from fusionvl.processing import FusionProcessor

ROOT = Path(__file__).parents[1]
CLIENTS = (1, 4, 8, 16)
# SmolLM2-135M's sizes.
DECODER_135M = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 2048, "tie_word_embeddings": True,
}  # fmt: skip


class Subject:
    """A process that answers rounds of requests (`serving_subject.py`)."""

    def __init__(self, kind: str, python: Path, source: Path, folder: Path, core: int, options: Sequence[str]) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(source / "src"),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_NO_USAGE_STATS": "1",
        }
        script = ROOT / "benchmarks" / "serving_subject.py"
        self.process = subprocess.Popen(
            [str(python), str(script), kind, str(folder), str(core), *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.read()

    def read(self) -> dict[str, Any]:
        """The next answer; whatever else the process prints is not one."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise RuntimeError(f"a process ended with code {self.process.wait()}; what it wrote stands above")

    def round(self, clients: int, requests: int, seed: int) -> dict[str, Any]:
        """Let it answer so many requests, from so many clients at once."""
        assert self.process.stdin is not None
        order = {"clients": clients, "requests": requests, "seed": seed}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return self.read()

    def end(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in folders(Path(scratch)).items():
            if name in options.models:
                soak(name, folder, options) if options.soak else compare(name, folder, options)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--before", type=Path, help="checkout of a commit with the batching engine")
    add("--vllm-python", type=Path, default=ROOT / ".venv-vllm" / "bin" / "python", help="of vLLM's environment")
    add("--models", nargs="+", choices=["nano", "135M"], default=["nano", "135M"])
    add("--clients", nargs="+", type=int, default=list(CLIENTS))
    add("--requests", type=int, default=4, help="of each client in a round")
    add("--rounds", type=int, default=5)
    add("--compiled", action="store_true", help="let vLLM compile the decoder")
    add("--core", type=int, default=0, help="CPU core that everything runs on")
    add("--soak", type=float, metavar="MINUTES", help="instead of comparing: keep vLLM busy, and watch its memory")
    options = parser.parse_args(arguments)
    if not options.soak and options.before is None:
        parser.error("--before names a checkout to compare with: git worktree add ../before c3aec75")
    return options


def folders(scratch: Path) -> dict[str, Path]:
    """The shipped model, and one with its encoder and a decoder of 135 million random weights."""
    nano = shipped_model()
    config = FusionConfig.from_pretrained(nano)
    larger = FusionConfig(
        vision_config=config.vision_config,
        text_config=LlamaConfig(**DECODER_135M),
        num_interaction_layers=10,
        window_size=config.window_size,
    )
    torch.manual_seed(0)
    FusionForConditionalGeneration(larger).save_pretrained(scratch / "135M")
    FusionProcessor.from_pretrained(nano).save_pretrained(scratch / "135M")
    return {"nano": nano, "135M": scratch / "135M"}


def compare(name: str, folder: Path, options: argparse.Namespace) -> None:
    compiled = ["--compiled"] if options.compiled else []
    subjects = {
        "vLLM": Subject("vllm", options.vllm_python, ROOT, folder, options.core, compiled),
        "before": Subject("before", Path(sys.executable), options.before, folder, options.core, []),
    }
    print(f"\n{name}: tokens a second, median of {options.rounds} rounds, and the ratio within a round")
    print("clients    vLLM   before   ratio [least..most]   same texts")
    for clients in options.clients:
        requests = clients * options.requests
        rates: dict[str, list[float]] = {subject: [] for subject in subjects}
        same, asked = 0, 0
        for round_number in range(-1, options.rounds):  # the first warms up
            answers = {
                subject: process.round(clients, requests, seed=1000 * clients + round_number)
                for subject, process in subjects.items()
            }
            if round_number < 0:
                continue
            for subject, answer in answers.items():
                rates[subject].append(answer["tokens"] / answer["seconds"])
            texts = [answer["texts"] for answer in answers.values()]
            same, asked = same + sum(map(str.__eq__, *texts)), asked + len(texts[0])
        ratios = [ours / theirs for ours, theirs in zip(*rates.values(), strict=True)]
        medians = [statistics.median(found) for found in rates.values()]
        print(
            f"{clients:7d} {medians[0]:7.1f} {medians[1]:8.1f}   {statistics.median(ratios):.2f} "
            f"[{min(ratios):.2f}..{max(ratios):.2f}]   {same} of {asked}",
            flush=True,
        )
    for process in subjects.values():
        process.end()


def soak(name: str, folder: Path, options: argparse.Namespace) -> None:
    subject = Subject("vllm", options.vllm_python, ROOT, folder, options.core, ["--compiled"] * options.compiled)
    subject.round(8, 64, seed=0)
    print(f"\n{name}: {options.soak:g} minutes of requests about ever new pictures, 8 at a time")
    began = time.monotonic()
    memory: list[float] = []
    requests = told = 0
    while (minutes := (time.monotonic() - began) / 60) < options.soak:
        answer = subject.round(8, 64, seed=len(memory) + 1)
        requests += 64
        memory.append(answer["resident_bytes"] / 2**20)
        if minutes >= told:
            told += 1
            print(f"minute {minutes:5.1f}: {requests} requests, {memory[-1]:.0f} MiB", flush=True)
    quarter = max(1, len(memory) // 4)
    first, last = statistics.median(memory[quarter : 2 * quarter]), statistics.median(memory[-quarter:])
    print(f"{requests} requests; second quarter {first:.0f} MiB, last quarter {last:.0f} MiB: {last - first:+.0f} MiB")
    subject.end()


if __name__ == "__main__":
    main(sys.argv[1:])
