"""What runs on the nodes of a cluster: makes whole shards with the very runner and steps of a run on one machine.

One worker keeps its steps, with the models they hold, from shard to shard. Everything that outlives it is in the run
folder, which all nodes see. Does not import Ray: what makes it an actor is in `ray_dispatch`.
"""

import asyncio
import os
import platform
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionvl.synth.manifest import MANIFEST, read_manifest
from fusionvl.synth.plan import Plan
from fusionvl.synth.recipe import SynthRecipe
from fusionvl.synth.run import build_steps, plan_of, prompts_of
from fusionvl.synth.runner import Runner
from fusionvl.synth.steps import Step
from fusionvl.synth.supervision import News, Reporter

_SECONDS_BETWEEN_NEWS = 1.0


@dataclass(frozen=True)
class Assignment:
    """What all workers of a run are told.

    Attributes:
        recipe: What to make, and with what.
        folder: The run folder.
        working_folder: Where the run was started: what paths in the recipe start from.
        manifest: What the run folder says about itself.
        environment: Variables that hold keys.
        retry_errors: Whether rows that are errors are tried again.
    """

    recipe: SynthRecipe
    folder: Path
    working_folder: Path
    manifest: dict[str, Any]
    environment: dict[str, str]
    retry_errors: bool


class ShardWorker:
    """Makes shards, one at a time.

    Args:
        assignment: What there is to make. Nothing is opened before `prepare`.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._plan: Plan | None = None
        self._steps: Sequence[Step] = ()

    async def prepare(self) -> None:
        """Open the run folder and build the steps.

        Raises:
            ValueError: When this node does not see the folders, or a setting is wrong.
            ModuleNotFoundError: When something is not installed here that a step needs.
        """
        given = self._assignment
        if not given.working_folder.is_dir():
            raise ValueError(f"{platform.node()} has no folder {given.working_folder}: {_SHARED}")
        os.chdir(given.working_folder)
        if not (given.folder / MANIFEST).is_file() or read_manifest(given.folder) != given.manifest:
            raise ValueError(f"{platform.node()} does not see the run folder {given.folder}: {_SHARED}")
        os.environ.update(given.environment)
        self._plan = plan_of(given.recipe)
        self._steps = build_steps(given.recipe, given.folder, prompts_of(given.recipe))

    async def make(self, shard: int, patience: float) -> AsyncIterator[News]:
        """Make a shard, and tell what happens about once a second until it is finished.

        Args:
            shard: Its number.
            patience: Seconds to wait for its lock.

        Raises:
            ValueError: See `Runner`.
        """
        if self._plan is None:
            raise RuntimeError("make was called before prepare")
        given, reporter = self._assignment, Reporter()
        runner = Runner(
            given.folder,
            self._plan,
            self._steps,
            watch=reporter,
            concurrency=given.recipe.concurrency,
            retry_errors=given.retry_errors,
            patience=patience,
        )
        making = asyncio.create_task(runner.run([shard]))
        while not making.done():
            await asyncio.wait([making], timeout=_SECONDS_BETWEEN_NEWS)
            yield reporter.take()
        await making


_SHARED = "start from a folder, and write into one, that all nodes of the cluster share"
