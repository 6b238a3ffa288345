"""What takes a step with the gradients: AdamW for every weight, or Muon for matrices and AdamW for the rest.

Knows named parameters and a stage's settings; knows no model, no data and no schedule.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from fusionvl.train.config import OptimizerName, StageConfig
from fusionvl.train.model import part_of

ADAMW_MOMENTS = 2


class MuonWithAdamW(torch.optim.Optimizer):
    """torch's Muon and AdamW as one optimizer, for one schedule and one state in checkpoints.

    Muon makes a matrix's momentum orthogonal and takes that for the update, so that no few directions outweigh all
    others (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"). Updates are scaled to the
    size of AdamW's (Liu et al. 2025, arXiv 2502.16982), so that rates and weight decay mean the same for both.

    Args:
        matrices: Parameter groups for Muon.
        others: Parameter groups for AdamW.
        betas: AdamW's.
    """

    def __init__(
        self, matrices: list[dict[str, Any]], others: list[dict[str, Any]], betas: tuple[float, float]
    ) -> None:
        self._takers: list[torch.optim.Optimizer] = []
        if matrices:
            self._takers.append(torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw"))
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

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step; with a closure, after computing the loss anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for taker in self._takers:
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
            groups[part_of(name), decays, is_for_muon(name, parameter)].append(parameter)
    for_muon: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for (part, decays, by_muon), of_group in groups.items():
        rate, decay = getattr(stage.learning_rates, part), stage.weight_decay if decays else 0.0
        for_muon[by_muon].append({"params": of_group, "lr": rate, "weight_decay": decay})
    if stage.optimizer == "muon":
        return MuonWithAdamW(for_muon[True], for_muon[False], betas)
    return torch.optim.AdamW(for_muon[True] + for_muon[False], betas=betas)


def is_for_muon(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon would take a parameter: a matrix between hidden states, and no table of tokens or positions."""
    return parameter.ndim == 2 and "embed" not in name and "lm_head" not in name


def moments(name: str, parameter: nn.Parameter, optimizer: OptimizerName) -> int:
    """How many tensors of a parameter's size the optimizer keeps for it: Muon the momentum, AdamW two moments."""
    return 1 if optimizer == "muon" and is_for_muon(name, parameter) else ADAMW_MOMENTS
