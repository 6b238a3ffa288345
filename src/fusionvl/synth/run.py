"""The whole run, top to bottom: a recipe's rows, through the steps it chose, into a run folder.

Knows which setting means which step; the steps know the rest.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from fusionvl.synth.captions import open_captions
from fusionvl.synth.fuse import Fuse
from fusionvl.synth.image_diffusion import DiffusionStep
from fusionvl.synth.manifest import claim
from fusionvl.synth.plan import Plan
from fusionvl.synth.procedural import SceneStep, make_scene
from fusionvl.synth.progress import Price, Progress, Tally
from fusionvl.synth.prompts import Prompts
from fusionvl.synth.recipe import Diffusion, Endpoint, LocalModel, Procedural, SynthRecipe, Template
from fusionvl.synth.runner import Runner
from fusionvl.synth.steps import Step
from fusionvl.synth.supervision import Supervisor
from fusionvl.synth.text import TextBackend
from fusionvl.synth.text_endpoint import EndpointModel
from fusionvl.synth.text_local import LocalLanguageModel
from fusionvl.synth.text_steps import DescribeStep, QuestionStep


def synthesize(
    recipe: SynthRecipe,
    folder: Path,
    *,
    share: tuple[int, int] = (0, 1),
    retry_errors: bool = False,
    accept_changed: bool = False,
    show_progress: bool = True,
) -> Tally:
    """Make the rows of a recipe, or those of them that are missing.

    Args:
        recipe: What to make, and with what.
        folder: The run folder; begun, or gone on with.
        share: (i, n): only every n-th shard, from the i-th on, for one of n processes.
        retry_errors: Whether rows that are errors are tried again.
        accept_changed: Whether the folder may have been begun under other settings; see `claim`.
        show_progress: Whether to show a progress bar.

    Returns:
        What there is in this share of the run, and what this session cost.

    Raises:
        ValueError: When the recipe, the captions or the folder are at fault, or the run had to stop; see `Runner`.
        ModuleNotFoundError: When something is not installed that a step needs; says how to install it.
    """
    plan = plan_of(recipe)
    shards = range(share[0], plan.shards, share[1])
    prompts = prompts_of(recipe)
    claim(folder, recipe, prompts.hashes, accept_changed)
    rows = sum(map(plan.rows_in, shards))
    progress = Progress(rows, Tally(), shown=show_progress)
    steps = build_steps(recipe, folder, prompts)
    runner = Runner(
        folder,
        plan,
        steps,
        watch=Supervisor(progress, Fuse(recipe.fuse, rows)),
        concurrency=recipe.concurrency,
        retry_errors=retry_errors,
    )
    try:
        asyncio.run(runner.run(shards))
    finally:
        for step in steps:
            step.close()
        progress.close()
    return progress.tally


def plan_of(recipe: SynthRecipe) -> Plan:
    """The rows of a recipe.

    Raises:
        ValueError: When a kind, a count or the captions are at fault.
    """
    captions = None if recipe.captions is None else open_captions(Path(recipe.captions))
    return Plan(recipe.source, recipe.split, recipe.seed, recipe.rows, recipe.shard_size, captions)


def prompts_of(recipe: SynthRecipe) -> Prompts:
    """What a recipe's language models are told.

    Raises:
        ValueError: When the recipe's own prompts are at fault.
    """
    return Prompts(recipe.language, None if recipe.prompts is None else Path(recipe.prompts))


def build_steps(recipe: SynthRecipe, folder: Path, prompts: Prompts) -> Sequence[Step]:
    """The steps a recipe chose.

    Raises:
        ModuleNotFoundError: When something is not installed that a step needs.
    """
    steps: list[Step] = []
    if isinstance(recipe.describe, Template):
        steps.append(_scene_step(recipe, folder))
    else:
        steps.append(DescribeStep(_text_backend(recipe.describe), prompts, _price(recipe.describe)))
    if not isinstance(recipe.questions, Template):
        steps.append(QuestionStep(_text_backend(recipe.questions), prompts, _price(recipe.questions)))
    if isinstance(recipe.images, Diffusion):
        steps.append(DiffusionStep(folder, recipe.images))
    return steps


def _scene_step(recipe: SynthRecipe, folder: Path) -> SceneStep:
    drawn = recipe.images if isinstance(recipe.images, Procedural) else None
    return SceneStep(
        folder,
        make_scene,
        with_turns=isinstance(recipe.questions, Template),
        size=drawn.size if drawn else None,
        processes=drawn.processes if drawn else 1,
    )


def _text_backend(settings: Endpoint | LocalModel) -> TextBackend:
    return EndpointModel(settings) if isinstance(settings, Endpoint) else LocalLanguageModel(settings)


def _price(settings: Endpoint | LocalModel) -> Price:
    return settings.price if isinstance(settings, Endpoint) else Price()
