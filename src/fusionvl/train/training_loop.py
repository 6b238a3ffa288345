"""The training loop of a stage: passes -> gradients -> a step; log, questions and checkpoints at their times.

Where a stage stands is one number, its step: order, learning rates and random numbers follow from it. Knows models,
batches and a stage's settings; knows no mixtures and no stage but its own.
"""

import hashlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from fusionvl.model import FusionForConditionalGeneration
from fusionvl.run_folder import megabytes
from fusionvl.train.checkpoints import save_checkpoint
from fusionvl.train.config import Recipe, StageConfig
from fusionvl.train.held_out import HeldOutQuestions
from fusionvl.train.metrics import StageLog
from fusionvl.train.optimizers import clip_gradients, rate_factor, take_step
from fusionvl.train.processes import summed, world_size
from fusionvl.train.stage_progress import StageProgress
from fusionvl.train.step_loss import TERMS, combined, counts_of, shares_of
from fusionvl.train.throughput import Throughput, peak_bytes

logger = logging.getLogger(__name__)


@dataclass
class TrainingLoop:
    """One stage in one process.

    Attributes:
        model: In its place, in training mode.
        optimizers: Of its weights.
        recipe: The run.
        stage: What is trained.
        steps: Of the whole stage.
        compute_dtype: Of matrix products; None: as the weights are.
        held_out: What is asked from time to time.
        log: Of the stage.
        folder: Where checkpoints go.
    """

    model: FusionForConditionalGeneration
    optimizers: Sequence[Optimizer]
    recipe: Recipe
    stage: StageConfig
    steps: int
    compute_dtype: torch.dtype | None
    held_out: HeldOutQuestions | None
    log: StageLog
    folder: Path

    def __post_init__(self) -> None:
        self._device = next(self.model.parameters()).device
        self._terms = self._no_terms()
        self._logged = 0

    def run(self, passes: Iterator[dict[str, Any]], first_step: int) -> None:
        """Train from a step on to the end.

        Args:
            passes: This process's batches, those of a step one after the other.
            first_step: Steps done before.

        Raises:
            ValueError: When a loss or a gradient is not finite; with the step and the rows.
            CannotWriteError: When the disk is full.
        """
        if first_step == self.steps:
            return
        of_step = self.stage.passes_of_each(world_size())
        self._throughput = Throughput(self.model, self._device, self.compute_dtype or torch.float32)
        self._logged = first_step
        with StageProgress(self.stage.name, first_step, self.steps) as progress:
            for step in range(first_step + 1, self.steps + 1):
                norm = self._take(step, list(islice(passes, of_step)))
                progress.advance()
                if step == first_step + 1:
                    logger.info("Memory: %s at most until after the first step", megabytes(peak_bytes(self._device)))
                if self._is_time(step, self.recipe.log_every):
                    values = self._measured(step, norm)
                    self.log.add(step, values)
                    progress.show(step, values)
                if self.held_out is not None and self._is_time(step, self.recipe.evaluate_every):
                    self.held_out.ask(self.model, step, self.log)
                if self._is_time(step, self.recipe.save_every):
                    save_checkpoint(self.folder, step, self.model, self.optimizers)
                    self.log.draw()

    def _is_time(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.steps

    def _take(self, step: int, batches: list[dict[str, Any]]) -> float:
        """Compute a step's gradients and take the step; return their norm."""
        counts = [counts_of(batch) for batch in batches]
        totals = summed(torch.stack(counts).sum(0).to(self._device)).cpu()
        for batch, shares in zip(batches, shares_of(counts, totals), strict=True):
            self._seed(step, batch["rows"])
            self._throughput.add(batch)
            # FSDP2 means gradients over processes; what is wanted is their sum.
            (world_size() * self._loss(step, batch, shares)).backward()
        norm = clip_gradients(self.model, self.stage.max_grad_norm)
        if not math.isfinite(norm):
            rows = ", ".join(row for batch in batches for row in batch["rows"])
            raise ValueError(
                f"Stage {self.stage.name}, step {step}: the loss is finite, the gradient is not (norm {norm}), after "
                f"these rows: {rows}"
            )
        take_step(self.optimizers, rate_factor(self.stage, step - 1, self.steps))
        return norm

    def _loss(self, step: int, batch: dict[str, Any], shares: torch.Tensor) -> torch.Tensor:
        """This pass's part of the step's loss; its terms are kept for the log."""
        inputs = {
            name: value.to(self._device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
            if name != "rows"
        }
        with torch.autocast(self._device.type, self.compute_dtype, enabled=self.compute_dtype is not None):
            outputs = self.model(**inputs, use_cache=False)
        terms = torch.stack([outputs[term].detach().double().to(self._device) for term in TERMS])
        if not bool(terms.isfinite().all()):
            told = ", ".join(f"{name} {value}" for name, value in zip(TERMS, terms.tolist(), strict=True))
            raise ValueError(
                f"Stage {self.stage.name}, step {step}: the loss is not finite ({told}) on these rows: "
                f"{', '.join(batch['rows'])}"
            )
        self._terms += terms * shares.to(self._device)
        return combined(outputs, shares, self.model.config.mapping_loss_weight)

    def _seed(self, step: int, rows: list[str]) -> None:
        """Let dropout depend on the pass alone, whichever process runs it."""
        place = f"pass/{self.recipe.seed}/{self.stage.name}/{step}/{rows}"
        torch.manual_seed(int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big") >> 1)

    def _measured(self, step: int, norm: float) -> dict[str, float]:
        """A row of the log: means over the steps since the row before."""
        terms = (summed(self._terms) / (step - self._logged)).tolist()
        self._terms, self._logged = self._no_terms(), step
        loss = terms[0] + self.model.config.mapping_loss_weight * sum(terms[1:])
        rates = vars(self.stage.learning_rates).values()
        factor = rate_factor(self.stage, step - 1, self.steps)
        return {
            "loss": loss,
            **dict(zip(TERMS, terms, strict=True)),
            "grad_norm": norm,
            "learning_rate": factor * max(rates),
            **self._throughput.report(),
        }

    def _no_terms(self) -> torch.Tensor:
        return torch.zeros(len(TERMS), dtype=torch.float64, device=self._device)
