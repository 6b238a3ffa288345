"""Throughput and waits under load: continuous batching against one question at a time; with random weights.

    python benchmarks/serving.py                          # nano-size model, 1 to 16 clients, on the CPU or the GPU
    python benchmarks/serving.py --preset small --quick
    python benchmarks/serving.py --url http://127.0.0.1:8000            # a running OpenAI-compatible server instead

Each client asks its next question when its last answer is complete. Several questions are about one picture; answers
are 32 to 64 tokens long. All loads run in one process in interleaved rounds after a warm-up, each from an empty cache
of pictures, and throughput is compared as ratios within a round; processor time a token, too, because it tells more
when other processes run beside. `one at a time` is what `FusionEngine.stream` does;
`batch of one` is the batching with a single place. STALL is the longest wait of running answers for their next token
while others join.
"""

import argparse
import dataclasses
import functools
import json
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from load import Outcome, Question, questions, run_clients
from measure import interleaved, print_spreads, ratios
from options import geometry_of, model_options, placement_of, print_settings, progress, settings
from served import Ask, Batched, OneAtATime, Server, build_engine, fresh

from fusionvl.engine import FusionEngine
from fusionvl.engine.continuous_batching import ContinuousBatching
from fusionvl.engine.engine import conversation
from fusionvl.engine.generation_request import SamplingSettings
from fusionvl.engine.listening import Collected

ALONE, SINGLE, BATCHED = "one at a time", "batch of one", "batching"
CLIENTS, QUICK_CLIENTS = (1, 4, 8, 16), (1, 8)
Outcomes = dict[str, list[Outcome]]


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    clients = QUICK_CLIENTS if options.quick else CLIENTS
    if options.url:
        server = Server(options.url, options.model, options.api_key)
        print(f"server {options.url}, model {server.model}")
        report: dict[str, Any] = {"settings": {"url": options.url, "model": server.model}}
        makers: dict[str, Callable[[], Ask]] = {"server": lambda: server}
    else:
        geometry, place = geometry_of(options), placement_of(options)
        engine = build_engine(geometry, options.early_guidance, place)
        report = {"settings": settings(geometry, place, options) | {"max_batch": options.max_batch}}
        print_settings(report["settings"])
        makers = {
            ALONE: lambda: OneAtATime(engine),
            SINGLE: lambda: Batched(engine, max_batch=1),
            BATCHED: lambda: Batched(engine, options.max_batch),
        }
        report["check"] = print_check(engine, options.max_batch)
    outcomes = loads(makers, clients, options)
    report["loads"] = print_loads(outcomes)
    report["ratios"] = print_ratios(outcomes, tuple(makers), clients)
    if not options.url:
        report["cpu_ratios"] = print_cpu_ratios(outcomes, clients)
        report["stall"] = print_stalls(engine, options)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = model_options(__doc__, "nano", "masked", "what the guide does in the first half of the encoder")
    parser.add_argument("--requests", type=int, default=8, help="questions of each client, on average")
    parser.add_argument("--per-picture", type=int, default=4, help="questions about one picture")
    parser.add_argument("--max-batch", type=int, default=16, help="answers that run at once")
    parser.add_argument("--quick", action="store_true", help="1 and 8 clients only, one round")
    parser.add_argument("--url", help="load a running server instead of an engine in this process")
    parser.add_argument("--model", help="with --url: the model's name; default: the first that the server lists")
    parser.add_argument("--api-key", help="with --url: if the server wants one")
    options = parser.parse_args(arguments)
    if min(options.requests, options.per_picture, options.max_batch, options.repeats) < 1:
        parser.error("--requests, --per-picture, --max-batch and --repeats must be at least 1")
    if options.quick:
        options.repeats = 1
    return options


def print_check(engine: FusionEngine, max_batch: int) -> dict[str, int]:
    """Hold that what is compared answers the same."""
    asked = [(conversation(question.picture, question.text), question.answer_tokens) for question in questions(8, 4)]
    with ContinuousBatching(fresh(engine), max_batch=max_batch) as batching:
        listeners = [Collected() for _ in asked]
        for listener, (messages, tokens) in zip(listeners, asked, strict=True):
            batching.submit(messages, SamplingSettings(max_new_tokens=tokens), listener)
        together = [listener.answer() for listener in listeners]
    alone = [engine.answer([messages], max_new_tokens=tokens, do_sample=False)[0] for messages, tokens in asked]
    equal = sum(one == other for one, other in zip(together, alone, strict=True))
    print(f"\nCHECK: {equal} of {len(asked)} answers of the batching are those of FusionEngine.answer", flush=True)
    return {"asked": len(asked), "equal": equal}


def loads(makers: dict[str, Callable[[], Ask]], clients: Sequence[int], options: argparse.Namespace) -> Outcomes:
    """Every system under every number of clients, in interleaved rounds."""
    jobs = {
        load_name(system, count): functools.partial(load, maker, count, options)
        for count in clients
        for system, maker in makers.items()
    }
    return interleaved(jobs, tuple(load_name(system, clients[0]) for system in makers), options.repeats, progress)


def load(maker: Callable[[], Ask], clients: int, options: argparse.Namespace) -> Outcome:
    asked = questions(clients * options.requests, options.per_picture, seed=clients)
    ask = maker()
    try:
        return run_clients(ask, asked, clients)
    finally:
        if isinstance(ask, Batched):
            ask.batching.close(drain=False)


def load_name(system: str, clients: int) -> str:
    return f"{system}, {clients} client{'s' if clients > 1 else ''}"


def print_loads(outcomes: Outcomes) -> dict[str, Any]:
    print("\nLOADS: medians over the rounds; first token, gap and processor time in ms", flush=True)
    heads = ("tokens/s", "requests/s", "first p50", "first p95", "gap p50", "longest gap", "CPU/token")
    print(f"{'':<28}" + "".join(f"{head:>13}" for head in heads))
    table = {}
    for name, rounds in outcomes.items():
        outcome = Outcome.median(rounds)
        print(f"{name:<28}" + "".join(f"{value:>13.1f}" for value in dataclasses.astuple(outcome)))
        table[name] = dataclasses.asdict(outcome)
    return table


def print_ratios(outcomes: Outcomes, systems: Sequence[str], clients: Sequence[int]) -> dict[str, Any]:
    print("\nRATIOS of tokens/s: median [least .. greatest]; above 1 is faster", flush=True)
    pairs = [
        (load_name(BATCHED, count), load_name(system, count))
        for count in clients
        for system in systems
        if BATCHED in systems and system != BATCHED
    ]
    pairs += [(load_name(systems[-1], count), load_name(systems[-1], clients[0])) for count in clients[1:]]
    table = {}
    for top, bottom in pairs:
        rates = ([outcome.tokens_per_s for outcome in outcomes[name]] for name in (top, bottom))
        table[f"{top} / {bottom}"] = ratios(*rates)
    return print_spreads(table)


def print_cpu_ratios(outcomes: Outcomes, clients: Sequence[int]) -> dict[str, Any]:
    print("\nRATIOS of processor time a token: median [least .. greatest]; above 1 takes less", flush=True)
    table = {}
    for count in clients:
        for system in (ALONE, SINGLE):
            top, bottom = load_name(system, count), load_name(BATCHED, count)
            times = ([outcome.cpu_ms_per_token for outcome in outcomes[name]] for name in (top, bottom))
            table[f"{top} / {bottom}"] = ratios(*times)
    return print_spreads(table)


def print_stalls(engine: FusionEngine, options: argparse.Namespace) -> dict[str, float]:
    """One long answer, alone and while questions about new pictures join."""
    print("\nSTALL: longest time between two tokens of a running answer, ms", flush=True)
    newcomers = questions(options.max_batch - 1, per_picture=1)
    table = {
        "nobody joins": stall(engine, [], options.max_batch, 0.1),
        "others join, max_stall 0.1 s": stall(engine, newcomers, options.max_batch, 0.1),
        "others join, max_stall 0": stall(engine, newcomers, options.max_batch, 0.0),
        "others join, prefills uninterrupted": stall(engine, newcomers, options.max_batch, float("inf")),
    }
    for name, value in table.items():
        print(f"{name:<40}{value:>13.1f}")
    return table


def stall(engine: FusionEngine, newcomers: Sequence[Question], max_batch: int, max_stall: float) -> float:
    progress(f"stall: {len(newcomers)} newcomers, max_stall {max_stall}")
    ask = Batched(engine, max_batch, max_stall)
    long = dataclasses.replace(questions(1, 1, seed=1)[0], answer_tokens=200)
    try:
        found: list[Outcome] = []
        running = threading.Thread(target=lambda: found.append(run_clients(ask, [long], 1)))
        running.start()
        while ask.batching.stats().steps < 5 and running.is_alive():
            running.join(0.001)
        if newcomers:
            run_clients(ask, newcomers, len(newcomers))
        running.join()
    finally:
        ask.batching.close(drain=False)
    return found[0].gap_longest_ms


if __name__ == "__main__":
    main(sys.argv[1:])
