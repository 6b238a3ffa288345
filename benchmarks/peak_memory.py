"""How much memory a block of code needs at most: of the process on a CPU, of the allocator on a GPU.

Knows what the system and torch tell; knows no models.
"""

import os
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


def _status_bytes(field: str) -> int:
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
