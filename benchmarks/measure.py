"""Clocks and counters: stage times of one answer, matrix product peak, ratios of interleaved runs.

Knows models only as something with methods to watch and a `generate`; knows no geometry.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers.generation.streamers import BaseStreamer

CLOCKS = ("wall", "cpu")


@dataclasses.dataclass(frozen=True)
class Time:
    """Seconds by the wall clock and, beside other work on the same cores the surer measure, by the process's own."""

    wall: float
    cpu: float

    def __add__(self, other: "Time") -> "Time":
        return Time(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: "Time") -> "Time":
        return Time(self.wall - other.wall, self.cpu - other.cpu)

    def __truediv__(self, count: int) -> "Time":
        return Time(self.wall / count, self.cpu / count)

    def spent(self, device: torch.device) -> float:
        """What counts against a peak: a CPU's own seconds, which other work does not stretch; on a GPU the wall's."""
        return self.cpu if device.type == "cpu" else self.wall


def now(device: torch.device) -> Time:
    """The time when all work given to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Time(time.perf_counter(), time.process_time())


@dataclasses.dataclass(frozen=True)
class Stages:
    """Times of one answer.

    Attributes:
        vision: Of vision encoding, mapped into the decoder's width.
        first_token: From pixels and prompt to the first token.
        token: Of each further token, None when there were none.
    """

    vision: Time
    first_token: Time
    token: Time | None

    @property
    def prefill(self) -> Time:
        """What of the first token is not vision encoding."""
        return self.first_token - self.vision


class TokenClock(BaseStreamer):
    """Notes when each new token has reached the CPU."""

    def __init__(self, device: torch.device) -> None:
        self.times: list[Time] = []
        self._device = device
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """Called by `generate` with the prompt first, then with each token."""
        if self._prompt_seen:
            self.times.append(now(self._device))
        self._prompt_seen = True

    def end(self) -> None:
        """Called by `generate` at the end."""


class MethodClock:
    """Time spent in some methods of a module, nested calls counted once."""

    def __init__(self, device: torch.device) -> None:
        self.time = Time(0.0, 0.0)
        self._device = device
        self._depth = 0

    @contextmanager
    def watching(self, module: nn.Module, names: Sequence[str]) -> Iterator[None]:
        """Watch the named methods of one module within the block."""
        for name in names:
            setattr(module, name, self._timed(getattr(module, name)))
        try:
            yield
        finally:
            for name in names:
                delattr(module, name)

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)  # `generate` reads the signatures of some
        def run(*args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            start = now(self._device) if self._depth == 1 else None
            try:
                return method(*args, **kwargs)
            finally:
                if start is not None:
                    self.time += now(self._device) - start
                self._depth -= 1

        return run


@dataclasses.dataclass(frozen=True)
class Spread:
    """Least, middle and greatest of repeated measurements."""

    least: float
    median: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Sum up the values."""
        return cls(min(values), statistics.median(values), max(values))

    def show(self, digits: int) -> str:
        """As `median [least .. greatest]`."""
        return f"{self.median:.{digits}f} [{self.least:.{digits}f} .. {self.greatest:.{digits}f}]"


def print_spreads(table: dict[str, Spread]) -> dict[str, Any]:
    """Print one spread a line; return them as a report holds them."""
    for name, spread in table.items():
        print(f"{name:<78}{spread.show(3):>24}")
    return {name: dataclasses.asdict(spread) for name, spread in table.items()}


def print_times(title: str, results: dict[str, list[Any]], columns: Sequence[str]) -> dict[str, dict[str, float]]:
    """Print the median of each attribute of the runs that is a time, by both clocks; return them as a report does."""
    print(f"\n{title}: medians in milliseconds, wall / CPU time", flush=True)
    print(f"{'':<34}" + "".join(f"{column.replace('_', ' '):>20}" for column in columns))
    table: dict[str, dict[str, float]] = {}
    for name, runs in results.items():
        table[name], line = {}, f"{name:<34}"
        for column in columns:
            times = [getattr(run, column) for run in runs]
            wall, cpu = (1000 * statistics.median(getattr(time, clock) for time in times) for clock in CLOCKS)
            table[name] |= {f"{column}_wall_ms": wall, f"{column}_cpu_ms": cpu}
            line += f"{f'{wall:.1f} / {cpu:.1f}':>20}"
        print(line)
    return table


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Ratios of measurements that were taken in the same rounds, so that a slow spell of the machine cancels out."""
    return Spread.of([top / bottom for top, bottom in zip(numerators, denominators, strict=True)])


def print_ratios(title: str, times: dict[str, tuple[Sequence[Time], Sequence[Time]]]) -> dict[str, Any]:
    """Print the ratios of two lists of times a line, by both clocks; return them as a report holds them."""
    print(f"\n{title}: median [least .. greatest]; below 1 is faster", flush=True)
    print(f"{'':<78}{'wall':>24}{'CPU time':>24}")
    table = {}
    for name, (tops, bottoms) in times.items():
        spreads = {
            clock: ratios([getattr(time, clock) for time in tops], [getattr(time, clock) for time in bottoms])
            for clock in CLOCKS
        }
        print(f"{name:<78}" + "".join(f"{spread.show(3):>24}" for spread in spreads.values()))
        table[name] = {clock: dataclasses.asdict(spread) for clock, spread in spreads.items()}
    return table


def interleaved(
    jobs: dict[str, Callable[[], Any]], warm_up: Sequence[str], repeats: int, progress: Callable[[str], None]
) -> dict[str, list[Any]]:
    """Run all jobs in turn, round by round, after those that warm up for all; results of each job in round order."""
    for name in warm_up:
        progress(f"warm-up: {name}")
        jobs[name]()
    results: dict[str, list[Any]] = {name: [] for name in jobs}
    for number in range(1, repeats + 1):
        for name, job in jobs.items():
            progress(f"round {number} of {repeats}: {name}")
            results[name].append(job())
    return results


def matmul_peak(device: torch.device, dtype: torch.dtype, repeats: int = 5) -> float:
    """Operations a second of one large matrix product, the best of several."""
    size = 8192 if device.type == "cuda" else 1536
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times = []
    for _ in range(repeats + 1):
        start = now(device)
        left @ right
        times.append((now(device) - start).spent(device))
    return 2 * size**3 / min(times[1:])


def count_operations(run: Callable[[], Any], parts: Sequence[str]) -> tuple[int, int]:
    """Matrix product operations of a run: in the named modules, and in all the rest.

    Attention counts in full, also where a causal mask makes half of it idle.
    """
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        run()
    counts = counter.get_flop_counts()
    inside = sum(sum(counts[part].values()) for part in parts if part in counts)
    return inside, counter.get_total_flops() - inside
