"""Checkpoints of a stage: which one it goes on from, which are kept, what is in them.

A folder that bears a checkpoint's name is whole. In it is what is trained, and the optimizers' state, in torch's
distributed format: every process writes its share, and any number of processes puts the shares together. Learning
rates, order and random numbers follow from the step, and frozen weights from the stage's start. Knows models and
optimizers; knows neither recipes nor the training loop.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from fusionvl.run_folder import discard, written_whole
from fusionvl.train.processes import is_first, wait
from fusionvl.train.stage_model import alone_or_not

KEPT = 2
_PREFIX = "checkpoint-"
_TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)


def checkpoints(folder: Path) -> list[Path]:
    """A stage's checkpoints, oldest first."""
    found = folder.glob(f"{_PREFIX}*")
    return sorted((path for path in found if path.name.removeprefix(_PREFIX).isdigit()), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def save_checkpoint(folder: Path, step: int, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Write a stage's checkpoint, which appears whole or not at all, and remove old ones; every process must call.

    Raises:
        CannotWriteError: When the disk is full.
    """
    with written_whole(folder / f"{_PREFIX}{step}", is_first=is_first(), meet=wait) as unfinished, alone_or_not():
        save(_state(model, optimizers), checkpoint_id=unfinished)
    if is_first():
        for checkpoint in checkpoints(folder)[:-KEPT]:
            discard(checkpoint)


def load_checkpoint(checkpoint: Path, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Bring weights and optimizers back to where they stood; every process must call."""
    state = _state(model, optimizers)
    with alone_or_not():
        load(state, checkpoint_id=checkpoint)
    set_state_dict(
        model, optimizers, model_state_dict=state["model"], optim_state_dict=state["optimizer"], options=_TRAINED
    )


def _state(model: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Any]:
    weights, of_optimizers = get_state_dict(model, optimizers, options=_TRAINED)
    # Of a frozen weight that is tied, torch leaves out one name only.
    trained = {name for name, weight in model.named_parameters(remove_duplicate=False) if weight.requires_grad}
    return {"model": {name: each for name, each in weights.items() if name in trained}, "optimizer": of_optimizers}
