"""A whole training run, top to bottom: recipe -> start -> stages -> a folder that `fusionvl ask` opens.

    fusionvl train recipes/nano.yaml --output runs/nano

Every stage leads from one folder of a model to another: `start`, `stage-1/model`, ... Started again, a run goes on
where it stopped: finished stages are kept, an unfinished one resumes at its last checkpoint. With `--stage` a single
stage is run, on the result of the one before.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from fusionvl.data.extras import import_extra
from fusionvl.data.mixture import Mixture
from fusionvl.engine.loading import load_model, load_processor
from fusionvl.model import FusionConfig
from fusionvl.processing import FusionProcessor
from fusionvl.run_folder import check_place, claim, forget_unfinished, write_whole, written_whole
from fusionvl.train.adapters import check_adapters
from fusionvl.train.config import Recipe, StageConfig, dump_recipe
from fusionvl.train.dataset import open_data
from fusionvl.train.held_out import divide_data
from fusionvl.train.metrics import check_trackers
from fusionvl.train.model_card import model_card
from fusionvl.train.processes import is_first, meet, wait, world_size
from fusionvl.train.stage import StageRun, computes_in_bfloat16
from fusionvl.train.starting_point import starting_point

logger = logging.getLogger(__name__)
PACKAGES = ("fusionvl", "torch", "transformers", "tokenizers", "accelerate")


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
        CannotWriteError: When the disk is full, or the output cannot be a folder.
        ModuleNotFoundError: When a package for training is not installed.
    """
    runs = _prepare(recipe, output, recipe.select_stages(stage))
    source = _source(recipe, output, runs)
    for each in runs:
        if not each.result.is_dir():
            each.train(source)
        source = each.result
    return source if runs[-1].stage is not recipe.stages[-1] else _save_final(recipe, runs, output / "model")


def _prepare(recipe: Recipe, output: Path, stages: list[StageConfig]) -> list[StageRun]:
    """Open all data and refuse before the first step what cannot work later."""
    import_extra("matplotlib", extra="train", needed_for="the plot of a training run")
    check_trackers(recipe.report_to)
    check_adapters(stages, computes_in_bfloat16(recipe.precision))
    check_place(output)
    mixtures, held_out = divide_data(recipe.held_out, [_open(stage, recipe.seed) for stage in stages], recipe.seed)
    runs = [
        StageRun(recipe, stage, mixture, held_out, output) for stage, mixture in zip(stages, mixtures, strict=True)
    ]
    before = recipe.stages[: recipe.stages.index(stages[0])]
    if before and not _result(output, before[-1]).is_dir():
        raise ValueError(
            f"Stage {stages[0].name} starts from the result of stage {before[-1].name}, and there is no "
            f"{_result(output, before[-1])}: run --stage {before[-1].name} first, or --stage all"
        )
    meet()
    if is_first():
        begun = any(output.glob("stage-*")) or any((output / name).exists() for name in ("start", "model"))
        claim(output, asdict(recipe), packages=PACKAGES, is_begun=begun)
        forget_unfinished(output)
        write_whole(output / "recipe.yaml", dump_recipe(recipe))
    wait()
    return runs


def _open(stage: StageConfig, seed: int) -> Mixture:
    stage.passes_of_each(world_size())
    try:
        return open_data(stage.data, seed)
    except ValueError as error:
        raise ValueError(f"Stage {stage.name}: {error}") from error


def _result(output: Path, stage: StageConfig) -> Path:
    return output / f"stage-{stage.name}" / "model"


def _source(recipe: Recipe, output: Path, runs: Sequence[StageRun]) -> Path:
    """The folder that the first stage to run starts from; the first process makes `start` where it is missing."""
    first = recipe.stages.index(runs[0].stage)
    if first:
        return _result(output, recipe.stages[first - 1])
    if runs[0].result.is_dir():
        return runs[0].result
    start = output / "start"
    if not start.is_dir():
        with written_whole(start, is_first=is_first(), meet=wait) as unfinished:
            if is_first():
                model, processor = starting_point(recipe)
                _check_num_latents(recipe.stages, model.config, processor)
                model.save_pretrained(unfinished)
                processor.save_pretrained(unfinished)
    return start


def _check_num_latents(stages: list[StageConfig], config: FusionConfig, processor: FusionProcessor) -> None:
    if config.uses_latents and processor.num_latents == 0:
        raise ValueError(
            "The model has interaction layers, and the last stage trains it without the latent tokens they work on: "
            "set that stage's num_latents to what is asked with later, or model.fusion.num_interaction_layers to 0"
        )
    for stage in stages:
        if any(stage.num_latents) and not config.uses_latents:
            raise ValueError(
                f"Stage {stage.name}: num_latents is {stage.num_latents}, and the model has no interaction layers to "
                f"read latent tokens: set num_latents: [0]"
            )
        for count in stage.num_latents:
            try:
                processor.check_num_latents(count)
            except ValueError as error:
                raise ValueError(f"Stage {stage.name}: {error}") from error


def _save_final(recipe: Recipe, runs: Sequence[StageRun], folder: Path) -> Path:
    """Write the last stage's model in the format that the recipe asks for, with its card."""
    source = str(runs[-1].result)
    with written_whole(folder, is_first=is_first(), meet=wait) as unfinished:
        if is_first():
            load_model(source, getattr(torch, recipe.save_dtype)).save_pretrained(unfinished)
            load_processor(source).save_pretrained(unfinished)
            (unfinished / "README.md").write_text(model_card(recipe, runs), encoding="utf-8")
    return folder
