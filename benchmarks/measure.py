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


def now(device: torch.device) -> float:
    """Seconds, when all work given to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@dataclasses.dataclass(frozen=True)
class Stages:
    """Times of one answer.

    Attributes:
        vision: Seconds of vision encoding, mapped into the decoder's width.
        first_token: Seconds from pixels and prompt to the first token.
        decode_rate: Further tokens a second, None when there were none.
    """

    vision: float
    first_token: float
    decode_rate: float | None

    @property
    def prefill(self) -> float:
        """Seconds of the first token that are not vision encoding."""
        return self.first_token - self.vision


class TokenClock(BaseStreamer):
    """Notes when each new token has reached the CPU."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.times: list[float] = []
        self._clock = clock
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """Called by `generate` with the prompt first, then with each token."""
        if self._prompt_seen:
            self.times.append(self._clock())
        self._prompt_seen = True

    def end(self) -> None:
        """Called by `generate` at the end."""


class MethodClock:
    """Seconds spent in some methods of a module, nested calls counted once."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
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
            start = now(self._device) if self._depth == 1 else 0.0
            try:
                return method(*args, **kwargs)
            finally:
                if self._depth == 1:
                    self.seconds += now(self._device) - start
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


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Ratios of measurements that were taken in the same rounds, so that a slow spell of the machine cancels out."""
    return Spread.of([top / bottom for top, bottom in zip(numerators, denominators, strict=True)])


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
        times.append(now(device) - start)
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
