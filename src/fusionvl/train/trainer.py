"""One trainer for every stage: transformers' Trainer with a learning rate per part, named loss terms and exact resume.

Knows stages and batches; the run around it is in `run.py`.
"""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments

from fusionvl.train.checkpoints import discard_old_checkpoints
from fusionvl.train.config import StageConfig
from fusionvl.train.dataset import MixtureConversations, NamingCollator
from fusionvl.train.disk import UNFINISHED, written_whole
from fusionvl.train.metrics import LOSS_TERMS
from fusionvl.train.optimizers import create_optimizer
from fusionvl.train.sharding import whole_state
from fusionvl.train.training_state import load_state, save_state


class FusionTrainer(Trainer):
    """Trains one stage.

    Args:
        stage: What the stage asks for.
        start_step: The step it goes on after; 0 for a fresh start.
        conversations: What it trains on.
        collate: Samples -> a batch of the processor's outputs with labels.
        sharded: Whether the model is sharded already, see `sharding.py`.
        **kwargs: As for `Trainer`.
    """

    def __init__(
        self,
        *,
        stage: StageConfig,
        start_step: int,
        conversations: MixtureConversations,
        collate: Any,
        args: TrainingArguments,
        sharded: bool = False,
        **kwargs: Any,
    ) -> None:
        self.stage = stage
        self.start_step = start_step
        self.conversations = conversations
        self._terms: dict[str, list[float]] = defaultdict(list)
        self._rows: list[str] = []  # of the step so far
        super().__init__(args=args, train_dataset=conversations, data_collator=collate, **kwargs)
        self.remove_callback(PrinterCallback)  # the log has a file and a progress bar
        # transformers' word for a model that places its weights and sums its gradients by itself. It is not said of
        # the model, for Trainer knows no checkpoints of such a one; ours do.
        self.is_distributed_loading_by_transformers = sharded

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The stage's, with a learning rate for each part."""
        betas = self.args.adam_beta1, self.args.adam_beta2
        self.optimizer = create_optimizer(self.model.named_parameters(), self.stage, betas)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """Linear warm-up, then a cosine down to the stage's floor."""
        warmup = max(1, round(self.stage.warmup_ratio * num_training_steps))
        floor = self.stage.min_learning_rate_ratio

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            progress = (step - warmup) / max(1, num_training_steps - warmup)
            return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
        return self.lr_scheduler

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches from the position where the run stands: no sample is skipped or repeated on resume."""
        workers = self.args.dataloader_num_workers
        return DataLoader(
            self.train_dataset,
            batch_sampler=self.conversations.batches(
                self.stage.batch_size,
                self.stage.gradient_accumulation,
                num_steps=self.args.max_steps,
                first_step=self.start_step,
                rank=self.args.process_index,
                processes=self.args.world_size,
            ),
            collate_fn=NamingCollator(self.data_collator),
            num_workers=workers,
            persistent_workers=workers > 0,
            # Without one of its own it draws from torch's, and dropout after a resume is another.
            generator=torch.Generator(),
        )

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any) -> Any:
        """The model's own loss; its terms are kept for the log. A blank image goes through without weight.

        Raises:
            ValueError: When a term is not finite; with the batch's rows.
        """
        rows, blank_image = inputs.pop("rows"), inputs.pop("blank_image", False)
        self._rows += rows
        outputs = model(**inputs)
        terms = {term: float(outputs[term].detach()) for term in LOSS_TERMS}
        if not all(map(math.isfinite, terms.values())):
            named = ", ".join(f"{term} {value}" for term, value in terms.items())
            raise ValueError(f"{self._step()}: the loss is not finite ({named}) on these rows: {', '.join(rows)}")
        for term, value in terms.items():
            self._terms[term].append(0.0 if blank_image and term != "lm_loss" else value)
        loss = outputs.lm_loss + 0.0 * outputs.loss if blank_image else outputs.loss
        return (loss, outputs) if return_outputs else loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Stop before the optimizer takes a step that no later one can undo."""
        norm = super()._get_grad_norm(model, grad_norm)
        if not math.isfinite(norm):
            raise ValueError(
                f"{self._step()}: the loss is finite, the gradient is not (norm {float(norm)}), after these rows: "
                f"{', '.join(self._rows)}"
            )
        self._rows.clear()
        return norm

    def _step(self) -> str:
        return f"Stage {self.stage.name}, step {self.state.global_step + 1}"

    def _get_output_dir(self, trial: Any) -> str:
        """Where Trainer writes a checkpoint; `_save_checkpoint` moves it to its place."""
        return str(Path(self.args.output_dir, UNFINISHED))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint that appears whole or not at all, then remove old ones."""
        with written_whole(Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")):
            super()._save_checkpoint(model, trial)
        if self.is_world_process_zero():
            discard_old_checkpoints(Path(self.args.output_dir))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each loss term since the last log line.

        Left out is what an interruption would change: epochs (positions say where a run stands), and the sums over all
        steps at the end, which count from the last start only.
        """
        if "loss" not in logs:
            return
        self.state.epoch = None
        means = [sum(values) / len(values) for values in self._terms.values()]
        of_all = self.accelerator.reduce(torch.tensor(means, dtype=torch.float64, device=self.args.device), "mean")
        super().log(logs | dict(zip(self._terms, of_all.tolist(), strict=True)), start_time)
        self._terms.clear()

    def whole_state(self) -> dict[str, torch.Tensor]:
        """All trained weights, for the first process; every process must call."""
        if self.is_deepspeed_enabled:
            gathered: dict[str, torch.Tensor] = self.accelerator.get_state_dict(self.deepspeed)
            return gathered
        return whole_state(self.model)

    # Checkpoints that any number of processes can go on from; DeepSpeed has its own.

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Nothing: in a checkpoint the weights stand beside the optimizer's state, results are written by the run."""

    @property
    def _plain_optimizer(self) -> torch.optim.Optimizer:
        wrapper: Any = self.optimizer  # accelerate's
        return wrapper.optimizer

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
        else:
            save_state(Path(output_dir), self.model, self._plain_optimizer, self.lr_scheduler)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Nothing: the weights are loaded with the optimizer's state."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.is_deepspeed_enabled or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
        else:
            load_state(Path(checkpoint), self.model, self._plain_optimizer, self.lr_scheduler)
