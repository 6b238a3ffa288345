"""The processes of a run: one, or several that `torchrun` started on one machine or on many.

Knows process groups; knows neither models nor recipes. With one process everything here does nothing.
"""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

_PATIENCE = timedelta(hours=1)  # of processes that wait while the first one writes a large model


def world_size() -> int:
    """How many processes train together, as `torchrun` says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is; the first writes what all of them share."""
    return int(os.environ.get("RANK", "0"))


def meet() -> None:
    """Connect with the other processes; each takes the GPU of its number where there are GPUs."""
    PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)


def all_processes() -> DeviceMesh:
    """All of them in a row, to shard a model over."""
    return init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (world_size(),))


def wait() -> None:
    """Go on when all processes are here: what the first wrote can then be read by the others."""
    if dist.is_initialized():
        dist.barrier()


def part() -> None:
    """Leave the other processes; the last thing of a run that ended well."""
    if dist.is_initialized():
        dist.destroy_process_group()
