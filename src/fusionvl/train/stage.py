"""One stage of a run: a folder of a model in, a folder of a trained model out.

Knows what a stage is made of; the steps are in `training_loop.py`, the stages' order in `run.py`.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from fusionvl.data.mixture import Mixture
from fusionvl.data.sample import Sample
from fusionvl.engine.devices import is_faster_in_bfloat16
from fusionvl.engine.loading import load_processor
from fusionvl.model import FusionForConditionalGeneration
from fusionvl.processing import FusionCollator, FusionProcessor
from fusionvl.run_folder import forget_unfinished, write_whole
from fusionvl.train.checkpoints import checkpoints, load_checkpoint, step_of
from fusionvl.train.config import Precision, Recipe, StageConfig
from fusionvl.train.dataset import MixtureConversations, NamingCollator
from fusionvl.train.freezing import describe
from fusionvl.train.held_out import HeldOutQuestions
from fusionvl.train.metrics import StageLog
from fusionvl.train.optimizers import create_optimizers
from fusionvl.train.processes import is_first, own_device, rank, wait, world_size
from fusionvl.train.stage_model import load_for_training, save_result
from fusionvl.train.training_loop import TrainingLoop

logger = logging.getLogger(__name__)
ROW_MULTIPLE = 16  # memory grows with the number of different lengths, see docs/log.md


@dataclass(frozen=True)
class StageRun:
    """A stage that is to be trained.

    Attributes:
        recipe: The run.
        stage: What is trained.
        mixture: Its data.
        held_out: The samples whose questions are asked while training.
        output: The run's folder.
    """

    recipe: Recipe
    stage: StageConfig
    mixture: Mixture
    held_out: list[Sample]
    output: Path

    @property
    def folder(self) -> Path:
        """Where the stage keeps its checkpoints."""
        return self.output / f"stage-{self.stage.name}"

    @property
    def result(self) -> Path:
        """Where the stage's model is when it is finished."""
        return self.folder / "model"

    @property
    def steps(self) -> int:
        """Optimizer steps of the stage."""
        return self.stage.steps(len(self.mixture))

    def train(self, start: Path) -> None:
        """Train from a model's folder to the stage's result, from the last checkpoint on where there is one.

        Raises:
            ValueError: When the data are not those that the stage began with, or the loss stops being finite.
            CannotWriteError: When the disk is full.
        """
        self._claim_data()
        checkpoint = next(reversed(checkpoints(self.folder)), None)
        first_step = 0 if checkpoint is None else step_of(checkpoint)
        processor = load_processor(str(start))
        compute_dtype = torch.bfloat16 if computes_in_bfloat16(self.recipe.precision) else None
        model = self._model(start, compute_dtype)
        optimizers = create_optimizers(model.named_parameters(), self.stage)
        if checkpoint is not None:
            load_checkpoint(checkpoint, model, optimizers)
        self._announce(first_step)
        logger.info(describe(model, self.stage.learning_rates))
        asked = self.recipe.held_out
        questions = None if asked is None else HeldOutQuestions(self.held_out, asked, processor)
        with StageLog(self.output, self.stage.name, first_step, self.recipe.report_to) as log:
            loop = TrainingLoop(
                model, optimizers, self.recipe, self.stage, self.steps, compute_dtype, questions, log, self.folder
            )
            loop.run(_batches(self._loader(processor, first_step)), first_step)
            log.draw()
        save_result(model, processor, self.result)

    def _claim_data(self) -> None:
        """The stage's data must still be what it began with."""
        recorded = self.folder / "mixture.txt"
        if recorded.exists() and recorded.read_text(encoding="utf-8") != self.mixture.fingerprint:
            raise ValueError(
                f"Stage {self.stage.name} began with other data than {self.stage.data.path or 'its datasets'} now "
                f"hold: its order would change. Restore the data, or remove {self.folder}"
            )
        wait()
        if is_first():
            write_whole(recorded, self.mixture.fingerprint)
            forget_unfinished(self.folder)
        wait()

    def _model(self, start: Path, compute_dtype: torch.dtype | None) -> FusionForConditionalGeneration:
        model = load_for_training(
            start,
            self.stage.learning_rates,
            attention=self.recipe.model.attention,
            lora=self.stage.lora,
            seed=self.recipe.seed,
            compute_dtype=compute_dtype,
        )
        if self.recipe.gradient_checkpointing:
            # transformers before 5.22 calls recomputed activations gradient checkpointing.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        if self.recipe.compile:
            for layer in model.model.language_model.layers:  # all of one code; what hooks add differs between them
                layer.forward = torch.compile(layer.forward)
        return model.train()

    def _loader(self, processor: FusionProcessor, first_step: int) -> DataLoader[Any]:
        """Batches from where the run stands on: no sample is skipped or repeated."""
        stage, workers = self.stage, self.recipe.data_workers
        conversations = MixtureConversations(self.mixture, processor, stage, self.folder / "quarantine.jsonl")
        collate = FusionCollator(
            processor,
            num_latents=stage.num_latents,
            seed=self.recipe.seed,
            max_length=stage.max_length,
            pad_to_multiple_of=ROW_MULTIPLE,
            blank_images=True,
        )
        return DataLoader(
            conversations,
            batch_sampler=conversations.batches(
                stage.batch_size,
                stage.gradient_accumulation,
                num_steps=self.steps,
                first_step=first_step,
                rank=rank(),
                processes=world_size(),
            ),
            collate_fn=NamingCollator(collate),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=own_device().type == "cuda",
            generator=torch.Generator(),  # without one of its own it draws from torch's
        )

    def _announce(self, first_step: int) -> None:
        steps = f"{self.steps} steps of {self.stage.batch_size} x {self.stage.gradient_accumulation} rows"
        logger.info("Stage %s: %s%s", self.stage.name, steps, f", going on after {first_step}" if first_step else "")


def _batches(loader: DataLoader[Any]) -> Iterator[dict[str, Any]]:
    """A loader's batches; what a worker process refuses is told without the worker's traceback."""
    try:
        yield from loader
    except ValueError as error:
        _, in_worker, sentence = str(error).rpartition("\nValueError: ")
        if not in_worker:
            raise
        raise ValueError(sentence.strip()) from error


def computes_in_bfloat16(precision: Precision) -> bool:
    """Whether forward and backward passes are computed in bfloat16; weights and optimizers stay float32.

    `auto` is where the device is faster in it than in float32.
    """
    if precision != "auto":
        return precision == "bfloat16"
    return is_faster_in_bfloat16(own_device())
