"""Checkpoints and results on disk: which one a run goes on from, and folders that appear whole or not at all.

A checkpoint of a stage with adapters holds what is trained and nothing else: the frozen weights are those that the
stage starts from. Knows the file system; knows no stages.
"""

import json
import logging
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fusionvl.model import FusionForConditionalGeneration
from fusionvl.processing import FusionProcessor

logger = logging.getLogger(__name__)
TRAINED_FILE = "trained.safetensors"


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


def trained_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights that are not frozen."""
    return {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_trained(model: nn.Module, checkpoint: Path) -> None:
    """Write the weights that are not frozen."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    save_file(trained_weights(model), checkpoint / TRAINED_FILE)


def load_trained(model: nn.Module, checkpoint: Path) -> None:
    """Put weights that `save_trained` wrote back into a model.

    Raises:
        ValueError: When they are not the weights that the model trains.
    """
    found, expected = load_file(checkpoint / TRAINED_FILE), trained_weights(model)
    if different := sorted(found.keys() ^ expected.keys()):
        raise ValueError(
            f"{checkpoint} holds {len(found)} weights and the stage trains {len(expected)}; {len(different)} are not "
            f"in both: {different[:5]}"
        )
    model.load_state_dict(found, strict=False)


def save_model(model: FusionForConditionalGeneration, processor: FusionProcessor, folder: Path) -> Path:
    """Write model and processor; the folder appears whole or not at all."""
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    processor.save_pretrained(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(unfinished, folder)
    return folder
