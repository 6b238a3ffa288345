"""The processes of a run: one, or several that `torchrun` started on one machine or on many.

Knows process groups and devices; knows neither models nor recipes. With one process everything here does nothing.
"""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import PartialState

_PATIENCE = timedelta(hours=1)  # of processes that wait while the first one writes a large model


def world_size() -> int:
    """How many processes train together, as `torchrun` says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is; the first writes what all of them share."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def meet() -> None:
    """Connect with the other processes; each takes the GPU of its number where there are GPUs."""
    PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)


def own_device() -> torch.device:
    """Where this process computes."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def wait() -> None:
    """Go on when all processes are here: what the first wrote can then be read by the others."""
    if dist.is_initialized():
        dist.barrier()


def summed(values: torch.Tensor) -> torch.Tensor:
    """The sums of these values over all processes, in place of them."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def part() -> None:
    """Leave the other processes, all at once; the last thing of a run that ended well."""
    if dist.is_initialized():
        dist.barrier()  # one that is gone early would tear connections that others still hold
        dist.destroy_process_group()
