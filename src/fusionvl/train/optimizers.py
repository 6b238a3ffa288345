"""What takes a step with the gradients: AdamW for every weight, or Muon for matrices and AdamW for the rest.

Knows named parameters and a stage's settings; knows no model, no data and no schedule.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import nn

from fusionvl.train.config import OptimizerName, StageConfig
from fusionvl.train.model import part_of
from fusionvl.train.muon import Muon

ADAMW_MOMENTS = 2


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon and AdamW as one optimizer, for one schedule and one state in checkpoints.

    Args:
        matrices: Parameter groups for Muon, at least one.
        others: Parameter groups for AdamW, if any.
        betas: AdamW's.
    """

    def __init__(
        self, matrices: list[dict[str, Any]], others: list[dict[str, Any]], betas: tuple[float, float]
    ) -> None:
        self._takers: list[torch.optim.Optimizer] = [Muon(matrices)]
        if others:
            self._takers.append(torch.optim.AdamW(others, betas=betas))
        super().__init__([group for taker in self._takers for group in taker.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Groups and state are this optimizer's; each of the two works on its own groups of them."""
        groups = iter(self.param_groups)
        for taker in self._takers:
            taker.param_groups = [next(groups) for _ in taker.param_groups]
            taker.state = self.state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a loaded state, and hand it on."""
        super().__setstate__(state)
        self._share()

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; with a closure, after computing the loss anew, once for both."""
        first, *others = self._takers
        loss = first.step(closure)
        for taker in others:
            taker.step()
        return loss


def create_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]], stage: StageConfig, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """A stage's optimizer: a group for each part of the model, weight decay on matrices only.

    Args:
        parameters: Names and parameters; frozen ones are left out.
        stage: Its optimizer, learning rates and weight decay.
        betas: AdamW's.
    """
    groups: dict[tuple[str, bool, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in parameters:
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and "embed" not in name
            groups[part_of(name), decays, is_for_muon(name, parameter, stage.optimizer)].append(parameter)
    matrices: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for (part, decays, by_muon), of_group in groups.items():
        rate, decay = getattr(stage.learning_rates, part), stage.weight_decay if decays else 0.0
        (matrices if by_muon else others).append({"params": of_group, "lr": rate, "weight_decay": decay})
    return MuonWithAdamW(matrices, others, betas) if matrices else torch.optim.AdamW(others, betas=betas)


def is_for_muon(name: str, parameter: nn.Parameter, optimizer: OptimizerName) -> bool:
    """Whether Muon takes a parameter: a matrix between hidden states, and no table of tokens or positions."""
    return optimizer == "muon" and parameter.ndim == 2 and "embed" not in name and "lm_head" not in name


def moments(name: str, parameter: nn.Parameter, optimizer: OptimizerName) -> int:
    """How many tensors of a parameter's size the optimizer keeps for it: Muon the momentum, AdamW two moments."""
    return 1 if is_for_muon(name, parameter, optimizer) else ADAMW_MOMENTS
