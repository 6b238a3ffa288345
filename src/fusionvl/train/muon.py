"""Muon: the update of a matrix is its momentum, made orthogonal, so that no few directions outweigh all others.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". torch has one too, which takes one
matrix at a time and computes in bfloat16: many times slower where a processor does not. Knows matrices, but no model.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

from fusionvl.engine.devices import multiplies_in_bfloat16

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the odd polynomial that each round applies to singular values: the steepest at zero that still ends near one."""

ROUNDS = 5
SMALLEST_NORM = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal, with decoupled weight decay.

    Updates have the size of AdamW's (Liu et al. 2025, arXiv 2502.16982): rates and decay mean the same for both.

    Args:
        params: Matrices, or groups of them.
        lr: Learning rate.
        weight_decay: Share of a weight that a step at rate 1 would take off.
        momentum: Share of the former momentum that is kept; a step looks ahead by as much (Nesterov).
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; with a closure, after computing the loss anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        alike: dict[tuple[int, int], list[tuple[Tensor, Tensor, dict[str, Any]]]] = defaultdict(list)
        for group in self.param_groups:
            for parameter in group["params"]:
                if (gradient := parameter.grad) is not None:
                    ahead = self._look_ahead(self.state[parameter], gradient, group["momentum"])
                    alike[parameter.shape].append((parameter, ahead, group))
        for (rows, columns), matrices in alike.items():
            updates = orthogonal(torch.stack([ahead for _, ahead, _ in matrices]))
            for (parameter, _, group), update in zip(matrices, updates.unbind(), strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-0.2 * max(rows, columns) ** 0.5 * group["lr"])
        return loss

    @staticmethod
    def _look_ahead(state: dict[str, Tensor], gradient: Tensor, momentum: float) -> Tensor:
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum_buffer"], momentum)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices with the same singular vectors whose singular values are near one (between 0.7 and 1.2 or so).

    Args:
        matrices: (number, rows, columns).

    Returns:
        The same shape and type.
    """
    wide = matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices
    x = wide.to(torch.bfloat16 if multiplies_in_bfloat16(matrices.device) else torch.float32)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=SMALLEST_NORM)
    a, b, c = COEFFICIENTS
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.mT if wide is not matrices else x).to(matrices.dtype)
