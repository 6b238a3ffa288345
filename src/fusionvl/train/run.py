"""A whole training run, top to bottom: recipe -> model -> stages -> a folder that `fusionvl ask` opens.

    fusionvl train recipes/nano.yaml --output runs/nano

Started again, it goes on where it stopped: finished stages are kept, an unfinished one resumes at its last checkpoint.
With `--stage` a single stage is run, on the result of the one before.
"""

import logging
from dataclasses import dataclass
from itertools import takewhile
from math import ceil
from pathlib import Path

import torch
from transformers import TrainerCallback, set_seed
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from fusionvl.data.extras import import_extra
from fusionvl.data.mixture import Mixture
from fusionvl.data.sample import Sample
from fusionvl.engine.loading import load_model, load_processor
from fusionvl.model import FusionForConditionalGeneration
from fusionvl.processing import FusionCollator, FusionProcessor
from fusionvl.train.adapters import add_adapters, check_adapters, merge_adapters, save_adapter
from fusionvl.train.arguments import computes_in_bfloat16, parallelism, training_arguments
from fusionvl.train.checkpoints import (
    check_room_for_checkpoints,
    last_complete_checkpoint,
    naming_what_is_kept,
    save_model,
    step_of,
)
from fusionvl.train.config import ModelFromParts, Recipe, StageConfig
from fusionvl.train.dataset import MixtureConversations, open_data
from fusionvl.train.disk import forget_unfinished, write_text
from fusionvl.train.held_out import AskHeldOut, held_out_samples
from fusionvl.train.memory import MemoryReport
from fusionvl.train.metrics import MetricsFile, forget_after, plot_metrics
from fusionvl.train.model import freeze_and_describe
from fusionvl.train.processes import all_processes, meet, rank, wait, world_size
from fusionvl.train.progress import Progress
from fusionvl.train.run_folder import claim
from fusionvl.train.sharding import apply_fsdp2
from fusionvl.train.starting_point import starting_point
from fusionvl.train.trainer import FusionTrainer

logger = logging.getLogger(__name__)
ROW_MULTIPLE = 16  # memory grows with the number of different lengths, see docs/log.md


@dataclass(frozen=True)
class Run:
    """What all stages of a run share.

    Attributes:
        recipe: What is run.
        output: The run's folder.
        mixtures: The data of each stage that is run, by the stage's name.
        held_out: The samples whose questions are asked while training.
    """

    recipe: Recipe
    output: Path
    mixtures: dict[str, Mixture]
    held_out: list[Sample]

    def folder(self, stage: StageConfig) -> Path:
        """Where a stage keeps its checkpoints."""
        return self.output / f"stage-{stage.name}"

    def result(self, stage: StageConfig) -> Path:
        """Where a stage's model is when it is finished."""
        return self.folder(stage) / "model"


def train(recipe: Recipe, output: Path, stage: str = "all") -> Path:
    """Run every stage of a recipe, or one of them.

    Args:
        recipe: The run.
        output: Its folder: recipe, versions, log, one folder per stage, and `model`, the result of the last.
        stage: Name of the stage to run, or `all`.

    Returns:
        The folder of the trained model.

    Raises:
        ValueError: When there is no such stage, the result of the stage before is missing, data cannot be used, the
            folder belongs to another recipe, or the loss stops being finite.
        ModuleNotFoundError: When a package for training is not installed.
    """
    selected = recipe.select_stages(stage)
    run = _prepare(recipe, output, selected)
    first = recipe.stages.index(selected[0]) if selected else 0
    done = first + sum(1 for _ in takewhile(lambda each: run.result(each).is_dir(), selected))
    model, processor = _load(recipe, run.result(recipe.stages[done - 1])) if done else _start(recipe, output)
    _check_num_latents(selected, model, processor)
    for each in selected[done - first :]:
        if not run.result(each).is_dir():
            with naming_what_is_kept(run.folder(each)):
                _train_stage(run, each, model, processor)
        model, processor = _load(recipe, run.result(each))
    if selected and selected[-1] is not recipe.stages[-1]:
        return run.result(selected[-1])
    return save_model(model.to(getattr(torch, recipe.save_dtype)), processor, output / "model")


def _prepare(recipe: Recipe, output: Path, selected: list[StageConfig]) -> Run:
    """Open all data and refuse before the first step what cannot work later."""
    _check_optimizers(selected, parallelism(recipe))
    import_extra("matplotlib", extra="train", needed_for="the plot of a training run")
    if parallelism(recipe).startswith("deepspeed"):
        import_extra("deepspeed", extra="deepspeed", needed_for=f"parallel={recipe.parallel}")
    if "tensorboard" in recipe.report_to:
        import_extra("tensorboard", extra="train", needed_for="report_to: [tensorboard]")
    check_adapters(selected, computes_in_bfloat16(recipe))
    mixtures = {}
    for stage in selected:
        stage.passes_of_each(world_size())
        if stage.lora is not None and parallelism(recipe) not in ("none", "ddp"):
            raise ValueError(
                f"Stage {stage.name}: adapters cannot be merged into weights that {world_size()} processes share as "
                f"{parallelism(recipe)}: set parallel=ddp"
            )
        try:
            mixtures[stage.name] = open_data(stage.data, recipe.seed)
        except ValueError as error:
            raise ValueError(f"Stage {stage.name}: {error}") from error
    held_out = [] if recipe.held_out is None else held_out_samples(recipe.held_out, recipe.seed)
    run = Run(recipe, output, mixtures, held_out)
    before = recipe.stages[: recipe.stages.index(selected[0])] if selected else []
    if before and not run.result(before[-1]).is_dir():
        raise ValueError(
            f"Stage {selected[0].name} starts from the result of stage {before[-1].name}, and there is no "
            f"{run.result(before[-1])}: run --stage {before[-1].name} first, or --stage all"
        )
    meet()
    if rank() == 0:
        claim(output, recipe)
    wait()
    return run


def _check_optimizers(stages: list[StageConfig], parallel: str) -> None:
    for stage in stages:
        if stage.optimizer == "muon" and parallel.startswith("deepspeed"):
            raise ValueError(
                f"Stage {stage.name}: optimizer muon needs whole matrices, and {parallel} cuts them to pieces: set "
                f"parallel=ddp or parallel=fsdp2, or optimizer: adamw"
            )


def _check_num_latents(
    stages: list[StageConfig], model: FusionForConditionalGeneration, processor: FusionProcessor
) -> None:
    if model.config.uses_latents and processor.num_latents == 0:
        raise ValueError(
            "The model has interaction layers, and the last stage trains it without the latent tokens they work on: "
            "set that stage's num_latents to what is asked with later, or model.fusion.num_interaction_layers to 0"
        )
    for stage in stages:
        if any(stage.num_latents) and not model.config.uses_latents:
            raise ValueError(
                f"Stage {stage.name}: num_latents is {stage.num_latents}, and the model has no interaction layers to "
                f"read latent tokens: set num_latents: [0]"
            )
        for count in stage.num_latents:
            try:
                processor.check_num_latents(count)
            except ValueError as error:
                raise ValueError(f"Stage {stage.name}: {error}") from error


def _start(recipe: Recipe, output: Path) -> tuple[FusionForConditionalGeneration, FusionProcessor]:
    """What the first stage starts from; a GGUF file is converted once for the whole run."""
    if not isinstance(recipe.model, ModelFromParts) or recipe.model.gguf_file is None:
        return starting_point(recipe)
    converted = output / "start"
    if not converted.is_dir():
        save_model(*starting_point(recipe), converted)
    return _load(recipe, converted)


def _load(recipe: Recipe, folder: Path) -> tuple[FusionForConditionalGeneration, FusionProcessor]:
    model = load_model(str(folder), torch.float32)
    model.set_attn_implementation(recipe.model.attention)
    return model, load_processor(str(folder))


def _train_stage(
    run: Run, stage: StageConfig, model: FusionForConditionalGeneration, processor: FusionProcessor
) -> None:
    set_seed(run.recipe.seed)
    folder = run.folder(stage)
    if stage.lora is not None:
        add_adapters(model, stage.lora)
    conversations = _conversations(run, stage, processor)
    forget_unfinished(folder)
    checkpoint = last_complete_checkpoint(folder)
    start_step = 0 if checkpoint is None else step_of(checkpoint)
    if rank() == 0:
        for log in ("metrics.jsonl", "samples.jsonl"):
            forget_after(run.output / log, stage.name, start_step)
    parts = freeze_and_describe(model, stage.learning_rates)
    sharded = parallelism(run.recipe) == "fsdp2"
    if sharded:
        apply_fsdp2(model, all_processes(), torch.bfloat16 if computes_in_bfloat16(run.recipe) else None)
    trainer = FusionTrainer(
        stage=stage,
        start_step=start_step,
        model=model,
        args=training_arguments(run.recipe, stage, folder),
        conversations=conversations,
        collate=FusionCollator(
            processor,
            num_latents=stage.num_latents,
            seed=run.recipe.seed,
            max_length=stage.max_length,
            pad_to_multiple_of=ROW_MULTIPLE,
            blank_images=True,
        ),
        callbacks=_callbacks(run, stage, processor),
        sharded=sharded,
    )
    _announce(stage, start_step)
    logger.info(parts)
    to_come = ceil((stage.max_steps - start_step) / run.recipe.save_every)
    check_room_for_checkpoints(model, folder, to_come, stage.optimizer)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if rank() == 0:
        plot_metrics(run.output / "metrics.jsonl")
    if stage.lora is not None:
        if rank() == 0:
            save_adapter(model, folder / "adapter")
        merge_adapters(model)
    save_model(model, processor, run.result(stage), None if world_size() == 1 else trainer.whole_state())
    unset_hf_deepspeed_config()  # as long as it is set, ZeRO-3 takes apart every model that is loaded


def _conversations(run: Run, stage: StageConfig, processor: FusionProcessor) -> MixtureConversations:
    """The stage's data; it must still be what the stage began with."""
    folder, mixture = run.folder(stage), run.mixtures[stage.name]
    folder.mkdir(parents=True, exist_ok=True)
    recorded = folder / "mixture.txt"
    if recorded.exists() and recorded.read_text() != mixture.fingerprint:
        raise ValueError(
            f"Stage {stage.name} began with other data than {stage.data.path or 'its datasets'} now hold: its order "
            f"would change. Restore the data, or remove {folder}"
        )
    wait()
    if rank() == 0:
        write_text(recorded, mixture.fingerprint)
    return MixtureConversations(mixture, processor, stage, folder / "quarantine.jsonl")


def _callbacks(run: Run, stage: StageConfig, processor: FusionProcessor) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [Progress(stage.name), MetricsFile(run.output / "metrics.jsonl", stage.name)]
    callbacks.append(MemoryReport(run.folder(stage) / "memory.json", stage.optimizer))
    if run.recipe.held_out is not None:
        asking = AskHeldOut(
            run.held_out, run.recipe.held_out, processor, run.recipe.evaluate_every, run.output, stage.name
        )
        callbacks.append(asking)
    return callbacks


def _announce(stage: StageConfig, start_step: int) -> None:
    steps = f"{stage.max_steps} steps of {stage.batch_size} x {stage.gradient_accumulation} rows"
    logger.info("Stage %s: %s%s", stage.name, steps, f", going on after step {start_step}" if start_step else "")
