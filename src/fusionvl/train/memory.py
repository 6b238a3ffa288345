"""Where a training step's memory goes: weights, gradients, optimizer state, what the backward pass needs, the peak.

The first three are known before the first step; the others are measured in it. Knows modules, optimizers and what the
system tells about a process or a GPU; `MemoryReport` writes it all down for a stage.
"""

import json
import logging
import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fusionvl.train.config import OptimizerName
from fusionvl.train.optimizers import ADAMW_MOMENTS, moments

logger = logging.getLogger(__name__)
PROCESS = Path("/proc/self")
STEP_COUNTER = 4  # bytes: AdamW counts the steps of each parameter by itself
MEBIBYTE = 2**20


def expected_bytes(model: nn.Module, optimizer: OptimizerName = "adamw") -> dict[str, int]:
    """What training this model holds from its first step on, besides the activations of a batch."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    trained = list(named.values())
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    gradients = storage_bytes(trained)
    return {
        "weights, trained": gradients,
        "weights, frozen": storage_bytes(tensor for parameter in frozen for tensor in _held_by(parameter)),
        "gradients": gradients,
        "optimizer state": sum(_state_bytes(name, parameter, optimizer) for name, parameter in named.items()),
    }


def _state_bytes(name: str, parameter: nn.Parameter, optimizer: OptimizerName) -> int:
    kept = moments(name, parameter, optimizer)
    return kept * storage_bytes([parameter]) + (STEP_COUNTER if kept == ADAMW_MOMENTS else 0)


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """What an optimizer holds by now."""
    return storage_bytes(value for state in optimizer.state.values() for value in state.values())


def _share(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor, all of it unless it is sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Memory under these tensors; what several of them share counts once."""
    storages = [_share(tensor).untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _held_by(parameter: nn.Parameter) -> list[torch.Tensor]:
    """A parameter, and the scales that one in 4 bits brings along."""
    packed = getattr(parameter, "quant_state", None)
    scales = [] if packed is None else [value for value in packed.as_dict().values() if torch.is_tensor(value)]
    return [parameter.data, *scales]


class KeptForBackward:
    """Measures what the next forward pass of a model keeps for its backward pass, weights left out.

    Counts the tensors that autograd saves. With activation checkpointing those are the inputs of the checkpointed
    layers; under autocast the cast copies of weights are among them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.bytes = 0
        self._weights = {_share(parameter).untyped_storage().data_ptr() for parameter in model.parameters()}
        self._kept: list[torch.Tensor] = []
        self._watching = ExitStack()
        self._hooks = [
            model.register_forward_pre_hook(self._start),
            model.register_forward_hook(self._stop, always_call=True),
        ]

    def close(self) -> None:
        """Leave the model as it was; happens by itself after the forward pass."""
        for hook in self._hooks:
            hook.remove()

    def _start(self, *_: Any) -> None:
        self._watching.enter_context(saved_tensors_hooks(self._keep, lambda kept: kept))

    def _stop(self, *_: Any) -> None:
        self._watching.close()
        self.close()
        self.bytes = storage_bytes(self._kept)
        self._kept.clear()

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        kept = tensor.detach()  # the tensor itself would hold the graph that holds it
        if _share(tensor).untyped_storage().data_ptr() not in self._weights:
            self._kept.append(kept)
        return kept


class PeakMemory:
    """Growth of memory over what is held at the start: of the process on a CPU, of the allocator on a GPU."""

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
        return max(self.peak() - self._held, 0)

    def peak(self) -> int:
        """Bytes in all."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return _status_bytes("VmHWM")


def _status_bytes(field: str) -> int:
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


class MemoryReport(TrainerCallback):
    """Logs a stage's memory before its first step and after it, and writes both to a JSON file, in bytes."""

    def __init__(self, path: Path, optimizer: OptimizerName) -> None:
        self._path = path
        self._optimizer = optimizer
        self._measured: dict[str, int] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report what is known; watch the first step."""
        self._expected = expected_bytes(kwargs["model"], self._optimizer)
        logger.info(_table("memory", {**self._expected, "together": sum(self._expected.values())}))
        self._kept = KeptForBackward(kwargs["model"])
        self._peak = PeakMemory(args.device) if PeakMemory.is_known(args.device) else None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report what was measured, once."""
        if self._measured:
            return
        self._measured = {
            "kept for the backward pass": self._kept.bytes,
            "optimizer state": optimizer_bytes(kwargs["optimizer"]),
        }
        if self._peak is not None:
            where = "GPU" if args.device.type == "cuda" else "process"
            self._measured[f"peak of the {where}"] = self._peak.peak()
        logger.info(_table("memory, first step", self._measured))
        report = {"expected": self._expected, "measured": self._measured}
        self._path.write_text(json.dumps(report, indent=2) + "\n")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave nothing on a model that had no step left to take."""
        self._kept.close()


def _table(title: str, rows: dict[str, int]) -> str:
    lines = [f"{name:<30}{count / MEBIBYTE:>14,.1f}" for name, count in rows.items()]
    return "\n".join([f"{title:<30}{'MiB':>14}", *lines])
