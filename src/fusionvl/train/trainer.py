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

from fusionvl.train.checkpoints import load_trained, save_trained
from fusionvl.train.config import StageConfig
from fusionvl.train.dataset import MixtureConversations
from fusionvl.train.metrics import LOSS_TERMS
from fusionvl.train.model import part_of


class FusionTrainer(Trainer):
    """Trains one stage.

    Args:
        stage: What the stage asks for.
        start_step: The step it goes on after; 0 for a fresh start.
        conversations: What it trains on.
        collate: Samples -> a batch of the processor's outputs with labels.
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
        **kwargs: Any,
    ) -> None:
        self.stage = stage
        self.start_step = start_step
        self.conversations = conversations
        self._terms: dict[str, list[float]] = defaultdict(list)
        super().__init__(args=args, train_dataset=conversations, data_collator=collate, **kwargs)
        self.remove_callback(PrinterCallback)  # the log has a file and a progress bar

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with one group per part and weight decay on matrices only."""
        groups: dict[tuple[str, bool], list[nn.Parameter]] = defaultdict(list)
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                decays = parameter.ndim > 1 and "embed" not in name
                groups[part_of(name), decays].append(parameter)
        self.optimizer = torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "lr": getattr(self.stage.learning_rates, part),
                    "weight_decay": self.stage.weight_decay if decays else 0.0,
                }
                for (part, decays), parameters in groups.items()
            ],
            betas=(self.args.adam_beta1, self.args.adam_beta2),
        )
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
                self.args.train_batch_size,
                self.args.gradient_accumulation_steps,
                num_steps=self.args.max_steps,
                first_step=self.start_step,
            ),
            collate_fn=self.data_collator,
            generator=torch.Generator(),  # else a resumed run's dropout would be off by the number drawn here
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Called for a checkpoint; beside adapters the frozen weights need not be in it."""
        if self.stage.lora is None:
            super()._save(output_dir, state_dict)
        else:
            save_trained(self.model, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.stage.lora is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_trained(self.model, Path(resume_from_checkpoint))

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any) -> Any:
        """The model's own loss; its terms are kept for the log."""
        outputs = model(**inputs)
        for term in LOSS_TERMS:
            self._terms[term].append(float(outputs[term].detach()))
        if not math.isfinite(self._terms["lm_loss"][-1]):
            raise ValueError(f"The loss is not finite in step {self.state.global_step + 1}: {dict(outputs.items())}")
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each loss term since the last log line; positions, not epochs, say where a run stands."""
        logs.pop("epoch", None)
        if "loss" in logs and self._terms:
            logs |= {term: sum(values) / len(values) for term, values in self._terms.items()}
            self._terms.clear()
        super().log(logs, start_time)
