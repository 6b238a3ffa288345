"""What takes a step with the gradients: AdamW for every weight, or Muon for matrices and AdamW for the rest.

Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks") makes the momentum of a matrix
orthogonal, so that no few directions outweigh all others; torch has it. Knows named parameters and a stage's settings;
knows no model and no data.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.distributed.tensor import DTensor, Replicate
from torch.optim import AdamW, Muon, Optimizer

from fusionvl.train.config import OptimizerName, StageConfig
from fusionvl.train.freezing import part_of

_PEAK = "peak_lr"


class Schedule(Protocol):
    """What a stage says of its optimizer."""

    optimizer: OptimizerName
    warmup_ratio: float
    min_learning_rate_ratio: float
    weight_decay: float
    adam_beta2: float


def create_optimizers(parameters: Iterable[tuple[str, nn.Parameter]], stage: StageConfig) -> list[Optimizer]:
    """A stage's optimizers: each part of the model learns at its own rate."""

    def rate_of(name: str) -> tuple[str, float]:
        part = part_of(name)
        return part, getattr(stage.learning_rates, part)

    return make_optimizers(parameters, rate_of, stage)


def make_optimizers(
    parameters: Iterable[tuple[str, nn.Parameter]], rate_of: Callable[[str], tuple[str, float]], schedule: Schedule
) -> list[Optimizer]:
    """Optimizers with a group for each part; weight decay on matrices only.

    Args:
        parameters: Names and parameters; frozen ones are left out.
        rate_of: A parameter's name -> its part and peak learning rate.
        schedule: Which optimizer, and its weight decay. Muon's updates are scaled to the size of AdamW's (Liu et al.
            2025, arXiv 2502.16982), so rates and decay mean the same for both.
    """
    groups: dict[tuple[str, float, bool, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in parameters:
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and "embed" not in name
            groups[*rate_of(name), decays, is_for_muon(name, parameter, schedule.optimizer)].append(parameter)
    matrices: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for (_, rate, decays, by_muon), of_group in groups.items():
        decay = schedule.weight_decay if decays else 0.0
        group = {"params": of_group, "lr": rate, _PEAK: rate, "weight_decay": decay}
        (matrices if by_muon else others).append(group)
    optimizers: list[Optimizer] = []
    if matrices:
        optimizers.append(Muon(matrices, adjust_lr_fn="match_rms_adamw"))
    if others:
        optimizers.append(AdamW(others, betas=(0.9, schedule.adam_beta2)))
    return optimizers


def is_for_muon(name: str, parameter: nn.Parameter, optimizer: OptimizerName) -> bool:
    """Whether Muon takes a parameter: a matrix between hidden states, and no table of tokens or positions."""
    return optimizer == "muon" and parameter.ndim == 2 and "embed" not in name and "lm_head" not in name


def take_step(optimizers: Sequence[Optimizer], factor: float) -> None:
    """Take a step with the gradients, at a share of the peak learning rates, and forget the gradients."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group[_PEAK] * factor
        if isinstance(optimizer, Muon):
            _make_whole(optimizer)
        optimizer.step()
        optimizer.zero_grad()


def _make_whole(optimizer: Optimizer) -> None:
    """Gather the gradients of sharded matrices once: orthogonal is what a whole matrix is, not its pieces."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if isinstance(parameter.grad, DTensor):
                parameter.grad = parameter.grad.redistribute(placements=[Replicate()])


def rate_factor(schedule: Schedule, step: int, steps: int) -> float:
    """The share of the peak learning rates at a step: a linear warm-up, then a cosine down to the stage's floor.

    Args:
        schedule: Its warm-up and floor.
        step: From 0 on.
        steps: Of the whole stage.
    """
    warmup, floor = max(1, round(schedule.warmup_ratio * steps)), schedule.min_learning_rate_ratio
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def clip_gradients(model: nn.Module, limit: float) -> float:
    """Scale the gradients down to a norm over all processes, 0: leave them; return the norm before."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit or math.inf)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
