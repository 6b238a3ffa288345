"""The whole run, top to bottom: a recipe's rows, through the steps it chose, into a run folder.

Knows which setting means which step; the steps know the rest.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from fusionvl.synth.captions import open_captions
from fusionvl.synth.fuse import Fuse
from fusionvl.synth.manifest import claim
from fusionvl.synth.plan import Plan
from fusionvl.synth.procedural import SceneStep
from fusionvl.synth.progress import Progress, Tally
from fusionvl.synth.recipe import Procedural, SynthRecipe, Template
from fusionvl.synth.runner import Runner
from fusionvl.synth.steps import Step


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
    claim(folder, recipe, {}, accept_changed)
    progress = Progress(sum(map(plan.rows_in, shards)), Tally(), shown=show_progress)
    steps = build_steps(recipe, folder)
    runner = Runner(
        folder,
        plan,
        steps,
        fuse=Fuse(recipe.fuse),
        progress=progress,
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


def build_steps(recipe: SynthRecipe, folder: Path) -> Sequence[Step]:
    """The steps a recipe chose."""
    steps: list[Step] = []
    if isinstance(recipe.describe, Template):
        from fusionvl.synth.scenes import make_scene

        drawn = recipe.images if isinstance(recipe.images, Procedural) else None
        steps.append(
            SceneStep(
                folder,
                make_scene,
                with_turns=isinstance(recipe.questions, Template),
                size=drawn.size if drawn else None,
                processes=drawn.processes if drawn else 1,
            )
        )
    return steps
