"""A whole ablation, top to bottom: recipe -> every variant with every seed -> results, table and plot.

    runs/ablation/results.jsonl          a line for each finished run
    runs/ablation/VARIANT/seed-N/        what `fusionvl train` leaves, without the checkpoints of its stages
    runs/ablation/table.md, results.png  written anew after each run

All variants are trained with one seed before the next seed begins, so that an ablation that is cut short compares what
it has. Started again, it goes on with the first run that is missing.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from fusionvl.ablation.budget import used_parameters, widened
from fusionvl.ablation.plot import plot_results
from fusionvl.ablation.recipe import AblationRecipe, Questions, Variant, training_recipe
from fusionvl.ablation.results import Result, append_result, read_results
from fusionvl.ablation.scoring import PictureQuestion, clock, open_questions, score
from fusionvl.ablation.table import as_markdown
from fusionvl.data.extras import import_extra
from fusionvl.engine import FusionEngine
from fusionvl.provenance import commit_of
from fusionvl.run_folder import fingerprint, read_rows, write_whole
from fusionvl.train.config import ModelFromScratch, Recipe
from fusionvl.train.dataset import open_data
from fusionvl.train.run import train

logger = logging.getLogger(__name__)
RESULTS, TABLE, PLOT = "results.jsonl", "table.md", "results.png"


def ablate(recipe: AblationRecipe, output: Path) -> list[Result]:
    """Train and score what is missing of an ablation.

    Args:
        recipe: What is compared.
        output: Its folder.

    Returns:
        The results of all runs of the recipe, in the order they were finished.

    Raises:
        ValueError: When the folder holds results of other settings, data cannot be used, or a variant cannot be built.
        ModuleNotFoundError: When a package for training is not installed.
    """
    import_extra("matplotlib", extra="train", needed_for="the plot of an ablation")
    runs = trainings(recipe)
    asked = open_questions(recipe.questions)
    data = data_of(recipe)
    results = finished_results(recipe, runs, output)
    if any(result.data != data for result in results):
        raise ValueError(
            f"{output / RESULTS} holds results of other data under the same names: choose another --output, or "
            f"make the data again as they were"
        )
    done = {(result.variant, result.seed) for result in results}
    with tqdm(total=len(runs), initial=len(done), desc="ablation", unit="run", disable=None) as bar:
        for (name, seed), training in runs.items():
            if (name, seed) in done:
                continue
            logger.info("%s with seed %d, run %d of %d", name, seed, len(results) + 1, len(runs))
            folder = output / name / f"seed-{seed}"
            result = _run(recipe, name, training, folder, asked, data)
            append_result(output / RESULTS, result)
            for stage in folder.glob("stage-*"):  # checkpoints, and a copy of the model in each
                shutil.rmtree(stage)
            results.append(result)
            report(recipe, results, output)
            bar.update()
    return results


def trainings(recipe: AblationRecipe) -> dict[tuple[str, int], Recipe]:
    """The training of each variant with each seed, in the order they are run, at the first variant's parameters.

    Raises:
        ValueError: When a variant cannot be built; with its name.
    """
    models = {}
    for variant in recipe.variants:
        try:
            models[variant.name] = widened(_model(recipe, variant), like=_model(recipe, recipe.variants[0]))
        except ValueError as error:
            raise ValueError(f"Variant {variant.name}: {error}") from error
    return {
        (variant.name, seed): replace(training_recipe(recipe, variant, seed), model=models[variant.name])
        for seed in recipe.seeds
        for variant in recipe.variants
    }


def _model(recipe: AblationRecipe, variant: Variant) -> ModelFromScratch:
    model = training_recipe(recipe, variant, recipe.seeds[0]).model
    assert isinstance(model, ModelFromScratch)  # the recipe has made sure
    return model


def settings_of(training: Recipe, questions: Questions) -> str:
    """Fingerprint of what a result depends on, its data left out."""
    return fingerprint(asdict(training), asdict(questions))


def data_of(recipe: AblationRecipe) -> str:
    """Fingerprint of what the data hold: runs on other data are not put into one table.

    Raises:
        ValueError: When data cannot be opened.
    """
    every = [*(stage.data for stage in recipe.training.stages), recipe.questions.data]
    return fingerprint([open_data(data, seed=0).fingerprint for data in every])


def finished_results(recipe: AblationRecipe, runs: Mapping[tuple[str, int], Recipe], output: Path) -> list[Result]:
    """The results in a folder that are of these runs; those of other variants and seeds are left aside.

    Raises:
        ValueError: When one is of a variant and a seed of these, with other settings.
    """
    results = [result for result in read_results(output / RESULTS) if (result.variant, result.seed) in runs]
    for result in results:
        if result.settings != settings_of(runs[result.variant, result.seed], recipe.questions):
            raise ValueError(
                f"{output / RESULTS} holds a result of {result.variant!r} with seed {result.seed} of other settings: "
                f"choose another --output, or remove it"
            )
    return results


def recorded_results(recipe: AblationRecipe, output: Path) -> list[Result]:
    """The results that a folder holds of a recipe, without training anything.

    Raises:
        ValueError: When there are none, or they are of other settings.
    """
    results = finished_results(recipe, trainings(recipe), output)
    if not results:
        raise ValueError(f"{output / RESULTS} holds no results of this recipe yet")
    return results


def report(recipe: AblationRecipe, results: Sequence[Result], output: Path) -> None:
    """Write table and plot of what there is."""
    names = [variant.name for variant in recipe.variants]
    write_whole(output / TABLE, as_markdown(results, names) + "\n")
    plot_results(results, names, output / PLOT)


def _run(
    recipe: AblationRecipe, name: str, training: Recipe, folder: Path, asked: Sequence[PictureQuestion], data: str
) -> Result:
    went_on = (folder / "model").exists() or any(folder.glob("stage-*/checkpoint-*"))
    began = clock()
    model_folder = train(training, folder)
    seconds = clock() - began
    # Nothing remembered: every question pays for its picture, as a first question does.
    engine = FusionEngine.from_pretrained(model_folder, cache_bytes=0)
    outcome = score(engine, asked, recipe.questions)
    logged = [line for line in read_rows(folder / "metrics.jsonl", dict) if "lm_loss" in line]
    steps = sum({line["stage"]: line["step"] for line in logged}.values())
    return Result(
        variant=name,
        seed=training.seed,
        settings=settings_of(training, recipe.questions),
        data=data,
        parameters=used_parameters(engine.model),
        image_tokens=engine.processor.num_image_tokens,
        latent_tokens=engine.processor.num_latents,
        prompt_tokens=outcome.tokens,
        correct_by_kind={kind: list(counts) for kind, counts in outcome.correct_by_kind.items()},
        loss=logged[-1]["lm_loss"],
        seconds_per_step=None if went_on else seconds / steps,
        seconds_per_answer=outcome.seconds,
        commit=commit_of(Path(__file__)),
    )
