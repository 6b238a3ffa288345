"""Which device, in which number format, with how much memory. Knows machines, no model.

Whoever asks for a device that is not there, or is no device, is told what there is.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

LARGE_BLOCK = 2**22  # bytes
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD in glibc's malloc.h
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """The device of a name; `auto` is a GPU where there is one (CUDA, then Apple's), else the CPU.

    Raises:
        ValueError: When it is no device, or not one of this machine's.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"{name!r} is not a device to load a model on: choose auto, cpu, cuda, cuda:1 or mps")
    if device.type == "cuda" and not torch.cuda.is_available():
        reason = "torch here is a build for CPUs" if torch.version.cuda is None else "torch finds no GPU"
        raise ValueError(f"There is no device {name}: {reason}; leave the device out or choose cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"There is no device {name}: this machine has cuda:0 to cuda:{torch.cuda.device_count() - 1}")
    if device.type == "mps" and not _has_mps():
        raise ValueError("There is no device mps here: it is a GPU of Apple's; leave the device out or choose cpu")
    return device


def multiplies_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for it; one without them takes many times as long as in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return torch.backends.mps.is_macos_or_newer(14, 0)
    return any(found for name, found in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


def is_faster_in_bfloat16(device: torch.device) -> bool:
    """Whether products of many rows, as in training, take less time there in bfloat16 than in float32.

    Intel's CPUs since Sapphire Rapids are meant to do them in AMX, which virtual machines may hide: their other
    instructions for it take nearly twice as long as those for float32 (docs/performance.md).
    """
    if device.type == "cpu":
        found = torch.cpu.get_capabilities()
        hides_amx = found.get("avx512_fp16", False) and "Intel" in found.get("cpu_name", "")
        return multiplies_in_bfloat16(device) and (found.get("amx_bf16", False) or not hides_amx)
    return multiplies_in_bfloat16(device)


def choose_dtype(name: str, own: torch.dtype, device: torch.device) -> torch.dtype:
    """The number format of a name; `auto` is the checkpoint's own where the device computes in it, else the best.

    Args:
        name: `auto`, `float32`, `bfloat16` or `float16`.
        own: Of the checkpoint.
        device: Where the model will be.

    Raises:
        ValueError: When there is no such format.
    """
    if name != "auto":
        if name not in DTYPES:
            raise ValueError(f"{name!r} is not a number format of ours: choose auto, {', '.join(DTYPES)}")
        return DTYPES[name]
    if own == torch.bfloat16 and not multiplies_in_bfloat16(device):
        return torch.float32 if device.type == "cpu" else torch.float16
    if own == torch.float16 and device.type == "cpu":  # half-precision products are slow there
        return torch.bfloat16 if multiplies_in_bfloat16(device) else torch.float32
    return own


def free_bytes(device: torch.device) -> int:
    """Memory that can be had on a device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return int(psutil.virtual_memory().available)


@contextmanager
def tight_memory() -> Iterator[None]:
    """Let the process give memory back to the system: what is freed within, and every large block from now on.

    glibc would learn to keep blocks of up to 32 MB, and a cache that grows with every token leaves holes of all sizes
    among them. Other C libraries are left as they are.
    """
    c_library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if c_library is None or not hasattr(c_library, "mallopt") or not hasattr(c_library, "malloc_trim"):
        yield
        return
    c_library.mallopt(_MMAP_THRESHOLD, LARGE_BLOCK)
    yield
    c_library.malloc_trim(0)


def _has_mps() -> bool:
    return torch.backends.mps.is_available()
