"""Checkpoints and results on disk: which one a run goes on from, and folders that appear whole or not at all.

Knows the file system; knows no stages.
"""

import json
import logging
import os
import shutil
from pathlib import Path

import torch

from fusionvl.model import FusionForConditionalGeneration
from fusionvl.processing import FusionProcessor
from fusionvl.train.processes import rank, wait

logger = logging.getLogger(__name__)


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; a run may have been killed while writing one."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())  # what transformers writes last
        except (FileNotFoundError, json.JSONDecodeError):
            logger.warning("%s was not written to its end and is not used", checkpoint)
        else:
            return checkpoint
    return None


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.rsplit("-", 1)[1])


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
    """
    if rank() == 0:
        unfinished = folder.with_name(folder.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        model.save_pretrained(unfinished, state_dict=state)
        processor.save_pretrained(unfinished)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    wait()
    return folder
