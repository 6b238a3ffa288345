"""A stage's settings in transformers' words: recipe and stage -> `TrainingArguments`.

Knows recipes and what the machine computes in; knows no data and no model.
"""

from pathlib import Path

import torch
from transformers import TrainingArguments

from fusionvl.train.config import Recipe, StageConfig


def training_arguments(recipe: Recipe, stage: StageConfig, folder: Path) -> TrainingArguments:
    """What transformers' Trainer is told; learning rates and their schedule are the business of `FusionTrainer`."""
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=stage.max_steps,
        per_device_train_batch_size=stage.batch_size,
        gradient_accumulation_steps=stage.gradient_accumulation,
        max_grad_norm=stage.max_grad_norm,
        adam_beta2=stage.adam_beta2,
        bf16=computes_in_bfloat16(recipe),
        use_cpu=not torch.cuda.is_available(),
        logging_steps=recipe.log_every,
        save_steps=recipe.save_every,
        activation_checkpointing=recipe.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        dataloader_num_workers=recipe.data_workers,
        ignore_data_skip=True,  # batches start at the right position by themselves
        remove_unused_columns=False,
        disable_tqdm=True,  # the progress bar is ours
        report_to=recipe.report_to,
        seed=recipe.seed,
    )


def computes_in_bfloat16(recipe: Recipe) -> bool:
    """Whether forward and backward passes are computed in bfloat16; weights and optimizer stay float32."""
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported()
