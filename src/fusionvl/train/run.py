"""A whole training run, top to bottom: recipe -> model -> stages -> a folder that `fusionvl ask` opens.

    fusionvl train recipes/nano.yaml --output runs/nano

Started again, it goes on where it stopped: finished stages are kept, an unfinished one resumes at its last checkpoint.
With `--stage` a single stage is run, on the result of the one before.
"""

import json
import logging
import os
import platform
import shutil
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from fusionvl.data.easy_vqa import divide_train, load_split, question_samples
from fusionvl.data.mixture import open_mixture
from fusionvl.data.sample import Sample
from fusionvl.engine import FusionEngine
from fusionvl.engine.engine import conversation
from fusionvl.engine.loading import load_model, load_processor
from fusionvl.model import FusionForConditionalGeneration
from fusionvl.processing import FusionCollator, FusionProcessor
from fusionvl.train.config import EasyVqaData, MixtureData, Recipe, StageConfig, dump_recipe
from fusionvl.train.dataset import Conversations, EasyVqaConversations, MixtureConversations
from fusionvl.train.model import freeze_and_describe
from fusionvl.train.starting_point import starting_point
from fusionvl.train.trainer import FusionTrainer

logger = logging.getLogger(__name__)
HELD_OUT_QUESTIONS = 256
HELD_OUT_BATCH = 64


def train(recipe: Recipe, output: Path, stage: str = "all") -> Path:
    """Run every stage of a recipe, or one of them.

    Args:
        recipe: The run.
        output: Its folder: recipe, versions, one folder per stage, and `model`, the result of the last.
        stage: Name of the stage to run, or `all`.

    Returns:
        The folder of the trained model.

    Raises:
        ValueError: When there is no such stage, the result of the stage before is missing, a mixture file is missing,
            the folder belongs to another recipe, or the loss stops being finite.
    """
    selected = recipe.select_stages(stage)
    results = {each.name: output / f"stage-{each.name}" / "model" for each in recipe.stages}
    _check(recipe, selected, results)
    _claim(output, recipe)
    first = recipe.stages.index(selected[0]) if selected else 0
    done = first + sum(1 for _ in takewhile(lambda each: results[each.name].is_dir(), selected))
    model, processor = _load(recipe, results[recipe.stages[done - 1].name]) if done else starting_point(recipe)
    for each in selected[done - first :]:
        result = results[each.name]
        if not result.is_dir():
            _train_stage(recipe, each, model, processor, result.parent)
        model, processor = _load(recipe, result)
    if selected and selected[-1] is not recipe.stages[-1]:
        return results[selected[-1].name]
    return _save(model.to(getattr(torch, recipe.save_dtype)), processor, output / "model")


def _check(recipe: Recipe, selected: list[StageConfig], results: dict[str, Path]) -> None:
    """Refuse before the first step what cannot work later."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise ValueError(f"Training runs in one process so far, this one was started as one of {processes}")
    for stage in selected:
        if isinstance(stage.data, MixtureData) and not Path(stage.data.path).is_file():
            raise ValueError(f"Stage {stage.name}: there is no mixture file {stage.data.path}")
    before = recipe.stages[: recipe.stages.index(selected[0])] if selected else []
    if before and not results[before[-1].name].is_dir():
        raise ValueError(
            f"Stage {selected[0].name} starts from the result of stage {before[-1].name}, and there is no "
            f"{results[before[-1].name]}: run --stage {before[-1].name} first, or --stage all"
        )


def _load(recipe: Recipe, folder: Path) -> tuple[FusionForConditionalGeneration, FusionProcessor]:
    model = load_model(str(folder), torch.float32)
    model.set_attn_implementation(recipe.model.attention)
    return model, load_processor(str(folder))


def _claim(output: Path, recipe: Recipe) -> None:
    """Record what is run in this folder; another recipe must not go on with its checkpoints."""
    output.mkdir(parents=True, exist_ok=True)
    recorded = output / "recipe.yaml"
    text = dump_recipe(recipe)
    if recorded.exists() and recorded.read_text() != text:
        raise ValueError(
            f"{output} holds a run of another recipe (see {recorded}): choose another --output or remove it"
        )
    recorded.write_text(text)
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "tokenizers", "fusionvl")}
    versions["python"] = platform.python_version()
    (output / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


def _train_stage(
    recipe: Recipe,
    stage: StageConfig,
    model: FusionForConditionalGeneration,
    processor: FusionProcessor,
    folder: Path,
) -> None:
    set_seed(recipe.seed)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=stage.max_steps,
        per_device_train_batch_size=stage.batch_size,
        gradient_accumulation_steps=stage.gradient_accumulation,
        max_grad_norm=stage.max_grad_norm,
        adam_beta2=0.95,
        bf16=_computes_in_bfloat16(recipe),
        use_cpu=not torch.cuda.is_available(),
        logging_steps=recipe.log_every,
        save_steps=recipe.save_every,
        save_total_limit=2,
        activation_checkpointing=recipe.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        dataloader_num_workers=recipe.data_workers,
        ignore_data_skip=True,  # batches start at the right position by themselves
        remove_unused_columns=False,
        report_to="none",
        seed=recipe.seed,
    )
    callbacks: list[TrainerCallback] = [MetricsFile(folder / "metrics.jsonl")]
    if isinstance(stage.data, EasyVqaData):
        callbacks.append(HeldOutAccuracy(processor, recipe.evaluate_every, folder / "metrics.jsonl"))
    trainer = FusionTrainer(
        stage=stage,
        model=model,
        args=arguments,
        conversations=_conversations(stage, processor, recipe.seed, folder),
        collate=FusionCollator(
            processor,
            num_latents=stage.num_latents,
            seed=recipe.seed,
            max_length=stage.max_length,
            pad_to_multiple_of=recipe.pad_to_multiple_of,
        ),
        callbacks=callbacks,
    )
    checkpoint = _last_complete_checkpoint(folder)
    if checkpoint is not None:
        trainer.start_step = _step_of(checkpoint)
        _forget_metrics_after(folder / "metrics.jsonl", trainer.start_step)
        logger.info("Stage %s goes on after step %d", stage.name, trainer.start_step)
    logger.info(
        "Stage %s: %d steps of %d x %d rows",
        stage.name,
        stage.max_steps,
        stage.batch_size,
        stage.gradient_accumulation,
    )
    logger.info(freeze_and_describe(model, stage.learning_rates))
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    _save(model, processor, folder / "model")


def _conversations(stage: StageConfig, processor: FusionProcessor, seed: int, folder: Path) -> Conversations:
    if isinstance(stage.data, EasyVqaData):
        return EasyVqaConversations(stage.data, seed)
    images = None if stage.data.image_folder is None else Path(stage.data.image_folder)
    mixture = open_mixture(Path(stage.data.path), seed=seed, image_folder=images)
    folder.mkdir(parents=True, exist_ok=True)
    recorded = folder / "mixture.txt"
    if recorded.exists() and recorded.read_text() != mixture.fingerprint:
        raise ValueError(
            f"Stage {stage.name} began with other data than {stage.data.path} now names: its order would change. "
            f"Restore the mixture, or remove {folder}"
        )
    recorded.write_text(mixture.fingerprint)
    return MixtureConversations(
        mixture, processor, max(stage.num_latents), stage.max_length, stage.data.faults, folder / "quarantine.jsonl"
    )


def _last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; a run may have been killed while writing one."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step_of, reverse=True):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())  # what transformers writes last
        except (FileNotFoundError, json.JSONDecodeError):
            logger.warning("%s was not written to its end and is not used", checkpoint)
        else:
            return checkpoint
    return None


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])


def _forget_metrics_after(path: Path, step: int) -> None:
    """Drop what the log says of steps that will be run again."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    path.write_text("".join(kept))


def _computes_in_bfloat16(recipe: Recipe) -> bool:
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported()


def _save(model: FusionForConditionalGeneration, processor: FusionProcessor, folder: Path) -> Path:
    """Write model and processor; the folder appears whole or not at all."""
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    processor.save_pretrained(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(unfinished, folder)
    return folder


class MetricsFile(TrainerCallback):
    """Appends every log line to a JSONL file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Write the step with what was logged."""
        append_metrics(self.path, {"step": state.global_step, **(logs or {})})


class HeldOutAccuracy(TrainerCallback):
    """Measures exact answers to single questions about held-out train images; the test split is never touched."""

    def __init__(self, processor: FusionProcessor, every: int, path: Path) -> None:
        _, held_out = divide_train(load_split("train"))
        samples = question_samples(held_out)
        self.samples: list[Sample] = samples[:: max(1, len(samples) // HELD_OUT_QUESTIONS)]
        self.processor = processor
        self.every = every
        self.path = path

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure every so many steps and after the last."""
        if state.global_step % self.every and state.global_step != state.max_steps:
            return
        model = kwargs["model"]
        was_training = model.training
        engine = FusionEngine(model.eval(), self.processor, cache_bytes=0)
        correct = 0
        for start in range(0, len(self.samples), HELD_OUT_BATCH):
            batch = self.samples[start : start + HELD_OUT_BATCH]
            answers = engine.answer(
                [conversation(sample.image, sample.turns[0].question) for sample in batch], max_new_tokens=8
            )
            correct += sum(
                answer.text == sample.turns[0].answer for answer, sample in zip(answers, batch, strict=True)
            )
        model.train(was_training)
        accuracy = correct / len(self.samples)
        append_metrics(self.path, {"step": state.global_step, "held_out_accuracy": accuracy})
        logger.info(
            "Step %d: %.2f %% of %d held-out questions right", state.global_step, 100 * accuracy, len(self.samples)
        )


def append_metrics(path: Path, metrics: dict[str, float]) -> None:
    """Append one line to a JSONL file."""
    with path.open("a") as lines:
        lines.write(json.dumps(metrics) + "\n")
