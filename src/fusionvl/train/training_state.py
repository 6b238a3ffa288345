"""What a resumed stage needs of weights, optimizer and schedule, written by all processes together.

torch's distributed checkpoints: every process writes its share, and the shares are put together for another number of
processes, whole or sharded. Frozen weights are left out: the stage starts from them anyhow. Knows a model and its
optimizer; knows neither recipes nor the trainer.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

_FOLDER = "state"
_TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)


def save_state(checkpoint: Path, model: nn.Module, optimizer: Optimizer, scheduler: LambdaLR) -> None:
    """Write all three; every process must call."""
    with _alone_or_not():
        save(_state(model, optimizer, scheduler), checkpoint_id=checkpoint / _FOLDER)


def load_state(checkpoint: Path, model: nn.Module, optimizer: Optimizer, scheduler: LambdaLR) -> None:
    """Bring all three back to where they stood; every process must call."""
    state = _state(model, optimizer, scheduler)
    with _alone_or_not():
        load(state, checkpoint_id=checkpoint / _FOLDER)
    weights, optimizer_state = state["model"], state["optimizer"]
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=optimizer_state, options=_TRAINED)


def _state(model: nn.Module, optimizer: Optimizer, scheduler: LambdaLR) -> dict[str, Any]:
    weights, optimizer_state = get_state_dict(model, optimizer, options=_TRAINED)
    # Of a frozen weight that is tied, torch leaves out one name only.
    trained = {name for name, weight in model.named_parameters(remove_duplicate=False) if weight.requires_grad}
    weights = {name: weight for name, weight in weights.items() if name in trained}
    return {"model": weights, "optimizer": optimizer_state, "scheduler": scheduler}


@contextmanager
def _alone_or_not() -> Iterator[None]:
    """One process is as good as several: no warning. A failure is raised as the process that failed raised it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            yield
        except CheckpointException as error:  # torch's own kind, which is no Exception; inside are those of processes
            failure, _ = next(iter(error.failures.values()))
            raise failure from error
