"""How much memory a block of code needs at most: of the process on a CPU, of the allocator on a GPU.

Knows what the system and torch tell, and how a benchmark calls itself to be measured alone; knows no models.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

PROCESS = Path("/proc/self")


class PeakMemory:
    """Growth of memory over what is held at the start."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._held = torch.cuda.memory_allocated(device)
        else:
            (PROCESS / "clear_refs").write_text("5")  # resets the high-water mark
            self._held = _status_bytes("VmRSS")

    @staticmethod
    def is_known(device: torch.device) -> bool:
        """Whether the system tells."""
        return device.type == "cuda" or os.access(PROCESS / "clear_refs", os.W_OK)

    def growth(self) -> int:
        """Bytes since the start."""
        if self._device.type == "cuda":
            return max(torch.cuda.max_memory_allocated(self._device) - self._held, 0)
        return max(_status_bytes("VmHWM") - self._held, 0)


def print_memory(
    title: str, groups: Sequence[Sequence[str]], script: str, arguments: Sequence[str], device: torch.device
) -> dict[str, int]:
    """Print the growths that a benchmark tells when called with `--memory-of`, in a fresh process for each group."""
    print(f"\n{title}, MiB", flush=True)
    table: dict[str, int] = {}
    if not PeakMemory.is_known(device):
        print("not measured: this system does not tell a process's peak memory in /proc")
        return table
    # Blocks go back to the system as soon as they are free: the high-water mark shows what was in use at once.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    for names in groups:
        print(f"... memory: {'; '.join(names)}", file=sys.stderr, flush=True)
        command = [sys.executable, script, *arguments, "--memory-of", *names]
        told = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        table |= json.loads(told)
    for name, growth in table.items():
        print(f"{name:<60}{growth / 2**20:>12.1f}")
    return table


def _status_bytes(field: str) -> int:
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
