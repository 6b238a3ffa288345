"""A stage's settings in transformers' words: recipe and stage -> `TrainingArguments`.

Knows recipes and what the machine computes in; knows no data and no model.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainingArguments

from fusionvl.engine.devices import multiplies_in_bfloat16
from fusionvl.train.config import Recipe, StageConfig
from fusionvl.train.processes import world_size

_DEEPSPEED_CONFIGS = Path(__file__).parent / "deepspeed"


class FusionArguments(TrainingArguments):
    """Leaves the model where it is: a sharded one is in its place before the Trainer sees it."""

    place_model_on_device = False


def parallelism(recipe: Recipe) -> Literal["none", "ddp", "fsdp2", "deepspeed_zero2", "deepspeed_zero3"]:
    """How this run's processes share the work; one process shares nothing."""
    if world_size() == 1:
        return "none"
    if recipe.parallel != "auto":
        return recipe.parallel
    return "fsdp2" if torch.cuda.is_available() else "ddp"


def training_arguments(recipe: Recipe, stage: StageConfig, folder: Path) -> TrainingArguments:
    """What transformers' Trainer is told; learning rates and their schedule are the business of `FusionTrainer`.

    Raises:
        ValueError: When the processes cannot share a step's forward passes evenly.
    """
    kind = parallelism(recipe)
    arguments_class = FusionArguments if kind == "fsdp2" else TrainingArguments
    arguments = arguments_class(
        output_dir=str(folder),
        max_steps=stage.max_steps,
        per_device_train_batch_size=stage.batch_size,
        gradient_accumulation_steps=stage.passes_of_each(world_size()),
        deepspeed=str(_DEEPSPEED_CONFIGS / f"{kind.removeprefix('deepspeed_')}.json") if "zero" in kind else None,
        # Sharded gradients after each pass, not whole ones until the last: memory before communication.
        accelerator_config={"gradient_accumulation_kwargs": {"sync_each_batch": kind == "fsdp2"}},
        ddp_find_unused_parameters=False,  # every pass runs every layer, see `FusionCollator.blank_images`
        max_grad_norm=stage.max_grad_norm,
        adam_beta2=stage.adam_beta2,
        bf16=computes_in_bfloat16(recipe),
        use_cpu=not torch.cuda.is_available(),
        logging_steps=recipe.log_every,
        save_steps=recipe.save_every,
        dataloader_num_workers=recipe.data_workers,
        ignore_data_skip=True,  # batches start at the right position by themselves
        remove_unused_columns=False,
        disable_tqdm=True,  # the progress bar is ours
        report_to=recipe.report_to,
        seed=recipe.seed,
        **_checkpointing(recipe.gradient_checkpointing),
    )
    if arguments.n_gpu > 1:  # one process beside several GPUs takes one: DataParallel would divide images like rows
        arguments._n_gpu = 1
    return arguments


def _checkpointing(is_on: bool) -> dict[str, Any]:
    """Recomputed activations; transformers before 5.22 calls that gradient checkpointing."""
    name = "activation" if hasattr(TrainingArguments, "activation_checkpointing") else "gradient"
    return {f"{name}_checkpointing": is_on, f"{name}_checkpointing_kwargs": {"use_reentrant": False}}


def computes_in_bfloat16(recipe: Recipe) -> bool:
    """Whether forward and backward passes are computed in bfloat16; weights and optimizer stay float32."""
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    return multiplies_in_bfloat16(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
