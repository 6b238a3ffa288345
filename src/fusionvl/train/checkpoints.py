"""Checkpoints and results of a run: which one it goes on from, which are kept, how they are written.

A folder that bears a checkpoint's name is whole, see `disk.py`. What is in one: `training_state.py`. Knows no stages.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from fusionvl.model import FusionForConditionalGeneration
from fusionvl.processing import FusionProcessor
from fusionvl.train.config import OptimizerName
from fusionvl.train.disk import CannotWriteError, discard, free_space, megabytes, writing, written_whole
from fusionvl.train.optimizers import moments
from fusionvl.train.processes import rank

KEPT = 2
_PREFIX = "checkpoint-"


def checkpoints(folder: Path) -> list[Path]:
    """A stage's checkpoints, oldest first."""
    found = folder.glob(f"{_PREFIX}*")
    return sorted((path for path in found if path.name.removeprefix(_PREFIX).isdigit()), key=step_of)


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that a stage goes on from."""
    return next(reversed(checkpoints(folder)), None)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def discard_old_checkpoints(folder: Path) -> None:
    """Keep the newest few of a stage's checkpoints."""
    for checkpoint in checkpoints(folder)[:-KEPT]:
        discard(checkpoint)


def trained_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights that are not frozen."""
    return {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_model(
    model: FusionForConditionalGeneration,
    processor: FusionProcessor,
    folder: Path,
    state: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write model and processor; the folder appears whole or not at all. The first process writes, the others wait.

    Args:
        model: What is written.
        processor: Its processor.
        folder: Replaced if it is there.
        state: The weights, if the model itself does not hold them whole.

    Raises:
        CannotWriteError: When the disk is full.
    """
    with written_whole(folder) as unfinished:
        if rank() == 0:
            model.save_pretrained(unfinished, state_dict=state)
            processor.save_pretrained(unfinished)
    return folder


def checkpoint_size(model: nn.Module, optimizer: OptimizerName = "adamw") -> int:
    """Bytes that a checkpoint takes: the weights that are trained and the optimizer's moments of each, in float32."""
    trained = ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    return sum(
        (1 + moments(name, parameter, optimizer)) * parameter.numel() * torch.float32.itemsize
        for name, parameter in trained
    )


def check_room_for_checkpoints(
    model: nn.Module, folder: Path, to_come: int, optimizer: OptimizerName = "adamw"
) -> None:
    """Refuse to begin a stage whose checkpoints do not fit: those that are kept, and the one that is being written.

    Args:
        model: What is trained, with its frozen parts frozen.
        folder: The stage's.
        to_come: Checkpoints that are still to be written.
        optimizer: The stage's.

    Raises:
        ValueError: With the bytes needed and free.
    """
    present = len(checkpoints(folder))
    needed = (min(KEPT + 1, present + to_come) - present) * checkpoint_size(model, optimizer)
    if (free := free_space(folder)) < needed:
        raise ValueError(
            f"The checkpoints in {folder} will take about {megabytes(needed)} more, and only {megabytes(free)} are "
            "free there: make room or choose another --output"
        )


@contextmanager
def naming_what_is_kept(folder: Path) -> Iterator[None]:
    """Add to a failure to write within the block from where the same command goes on.

    Raises:
        CannotWriteError: With the path, the reason, the free space and the checkpoint that is kept.
    """
    try:
        with writing(folder):
            yield
    except CannotWriteError as error:
        last = last_complete_checkpoint(folder)
        kept = "its start, for it has no checkpoint yet" if last is None else f"{last}, which is whole"
        raise CannotWriteError(f"{error}: the stage goes on from {kept}") from error
