"""The whole run, top to bottom: a recipe's rows, through the steps it chose, into a run folder.

Knows which setting means which step; the steps know the rest.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from fusionvl.provenance import setting_differences
from fusionvl.run_folder import RECORD, claim, fingerprint, forget_unfinished, read_record, write_whole
from fusionvl.synth.kinds import KINDS
from fusionvl.synth.pictures import DiffusionStep, SceneStep, image_folder, open_drawings
from fusionvl.synth.plan import Plan, open_captions
from fusionvl.synth.progress import Tally
from fusionvl.synth.prompts import Prompts
from fusionvl.synth.recipe import Diffusion, Procedural, SynthRecipe, Template, identity
from fusionvl.synth.rows import Row, row_from_dict
from fusionvl.synth.shard_files import ROW_SCHEMA, SHARD_FOLDER, Record
from fusionvl.synth.shards import Keep, Needs, ShardJob, Sharing, Spend, complete
from fusionvl.synth.steps import DescribeStep, QuestionStep, Step
from fusionvl.synth.text_client import Endpoint, LanguageModel, LocalModel, Price, open_client
from fusionvl.synth.workers import devices_here

_PACKAGES = ("fusionvl", "pillow", "pyarrow", "pydantic", "openai", "transformers", "diffusers", "torch")
_PLAN = ("rows", "captions", "captions_fingerprint", "source", "split", "seed", "shard_size")


def synthesize(
    recipe: SynthRecipe, folder: Path, sharing: Sharing | None = None, *, accept_changed: bool = False
) -> Tally:
    """Make the rows of a recipe, or those of them that are missing.

    Args:
        recipe: What to make, and with what. On a cluster its `concurrency`, devices and processes are those of each
            shard that is made there.
        folder: The run folder; begun, or gone on with. On a cluster, on storage that all nodes share.
        sharing: Here, by one of several processes, or on a cluster.
        accept_changed: Whether rows may be added under settings other than the folder's; `run.json` then says what
            was changed and when. Which rows there are can never change.

    Returns:
        What there is in this share of the run, and what this session cost.

    Raises:
        ValueError: When the recipe, the captions, the folder or the cluster are at fault, or the run had to stop.
        ModuleNotFoundError: When something is not installed that a step needs; says how to install it.
    """
    sharing = sharing or Sharing()
    plan, needs = plan_of(recipe), needs_of(recipe) if sharing.ray is not None else Needs()
    folder = folder.resolve()
    _claim(folder, _settings(recipe), accept_changed)
    job = ShardJob(
        make=partial(make_row_work, recipe, plan, folder),
        folder=folder / SHARD_FOLDER,
        rows={shard: plan.rows_in(shard) for shard in range(plan.shards)},
        concurrency=recipe.concurrency,
        fuse=recipe.fuse,
        needs=needs,
    )
    return complete(job, sharing)


class RowWork:
    """Carries each planned row through its steps, and keeps it after each.

    Args:
        plan: The rows of the run.
        steps: What every row goes through, in order.
        folder: The run folder.
    """

    schema = ROW_SCHEMA

    def __init__(self, plan: Plan, steps: Sequence[Step], folder: Path) -> None:
        self.folder = folder / SHARD_FOLDER
        self._plan = plan
        self._steps = steps

    def rows(self, shard: int) -> Iterator[Row]:
        """The rows of a shard as they are before anything was made; what a kill left of their images is removed."""
        forget_unfinished(image_folder(self.folder.parent, shard))
        return self._plan.rows(shard)

    async def do(self, row: Row, shard: int, known: Record | None, keep: Keep) -> Record:
        """Make a row; what earlier steps brought is not made again."""
        if known is not None:
            row = replace(row_from_dict(known), status="open", reason="")
        while (step := self._next(row)) is not None:
            row = await step.run(row, shard)
            if row.status != "open":
                return row.to_dict()
            if self._next(row) is not None:
                keep(row.to_dict())
        return replace(row, status="ok").to_dict()

    def _next(self, row: Row) -> Step | None:
        return next((step for step in self._steps if not step.is_done(row)), None)

    def close(self) -> None:
        """Give back connections and processes."""
        for step in self._steps:
            step.close()


def make_row_work(recipe: SynthRecipe, plan: Plan, folder: Path, spend: Spend) -> RowWork:
    """The work of a recipe, with the steps it chose, ready to be done in this process.

    Raises:
        ValueError: When the recipe's own prompts are at fault.
        ModuleNotFoundError: When something is not installed that a step needs.
    """
    prompts = prompts_of(recipe)
    steps: list[Step] = []
    if isinstance(recipe.describe, Template):
        drawn = recipe.images if isinstance(recipe.images, Procedural) else None
        steps.append(SceneStep(folder, with_turns=isinstance(recipe.questions, Template), settings=drawn))
    else:
        steps.append(DescribeStep(open_client(recipe.describe), prompts, _price(recipe.describe), spend))
    if not isinstance(recipe.questions, Template):
        steps.append(QuestionStep(open_client(recipe.questions), prompts, _price(recipe.questions), spend))
    if isinstance(recipe.images, Diffusion):
        steps.append(DiffusionStep(folder, recipe.images))
    return RowWork(plan, steps, folder)


def plan_of(recipe: SynthRecipe) -> Plan:
    """The rows of a recipe.

    Raises:
        ValueError: When a kind, a count or the captions are at fault.
    """
    captions = None if recipe.captions is None else open_captions(Path(recipe.captions))
    plan = Plan(recipe.source, recipe.split, recipe.seed, recipe.rows, recipe.shard_size, captions)
    of_scenes_alone = [name for name in plan.counts if KINDS[name].asked is None]
    if of_scenes_alone and not isinstance(recipe.questions, Template):
        raise ValueError(
            f"rows: {', '.join(of_scenes_alone)}: only a scene can be asked about in this way: set questions to "
            "{kind: template}, or leave the kind out"
        )
    of_drawings = [name for name in plan.counts if KINDS[name].needs_drawings]
    if of_drawings and isinstance(recipe.images, Procedural) and open_drawings(recipe.images) is None:
        raise ValueError(
            f"rows: {', '.join(of_drawings)}: what artists have drawn is shown there: fetch it with python "
            "scripts/fetch_drawings.py --output data/drawings, and set images.drawings to data/drawings"
        )
    return plan


def prompts_of(recipe: SynthRecipe) -> Prompts:
    """What a recipe's language models are told.

    Raises:
        ValueError: When the recipe's own prompts are at fault.
    """
    return Prompts(recipe.language, None if recipe.prompts is None else Path(recipe.prompts))


def needs_of(recipe: SynthRecipe) -> Needs:
    """What one shard of a recipe takes of a cluster's node.

    Raises:
        ValueError: When the recipe's GPUs are not counted from 0: a task sees only those that it is given.
    """
    parts = (recipe.describe, recipe.questions, recipe.images)
    models = [part for part in parts if isinstance(part, LocalModel | Diffusion)]
    devices = [device for part in models for device in devices_here(part.devices)]
    drawing = recipe.images.processes if isinstance(recipe.images, Procedural) else 0
    gpus = {"cuda:0" if device == "cuda" else device for device in devices if device != "cpu"}
    if gpus != {f"cuda:{number}" for number in range(len(gpus))}:
        raise ValueError(
            f"devices: on a cluster each shard counts its own GPUs from cuda:0 on, and {sorted(gpus)} leaves some out"
        )
    keys = {part.api_key_variable for part in parts if isinstance(part, Endpoint)}
    return Needs(max(1, drawing + devices.count("cpu")), len(gpus), tuple(sorted(keys)))


def _settings(recipe: SynthRecipe) -> dict[str, Any]:
    asked = {"describe": recipe.describe, "questions": recipe.questions}
    steps = [step for step, made_by in asked.items() if not isinstance(made_by, Template)]
    hashes = prompts_of(recipe).hashes
    used = {name: hashes[name] for name in (f"{step}/{kind}" for step in steps for kind in recipe.rows)}
    settings = identity(recipe) | {"prompt_hashes": used}
    if recipe.captions is not None:
        settings["captions_fingerprint"] = fingerprint(Path(recipe.captions))
        settings["captions"] = Path(recipe.captions).name  # the same file may lie elsewhere on another machine
    if isinstance(recipe.images, Procedural) and (drawings := open_drawings(recipe.images)) is not None:
        settings["drawings_fingerprint"] = drawings.fingerprint
        settings["images"] |= {"drawings": Path(str(recipe.images.drawings)).name}
    return settings


def _claim(folder: Path, settings: dict[str, Any], accept_changed: bool) -> None:
    """Begin a run in a folder, or go on with the one that is there, under changed settings where that is meant.

    Raises:
        ValueError: When the folder belongs to another plan, to other settings that were not accepted, or holds
            something else.
    """
    is_begun = folder.is_dir() and any(not entry.name.startswith(RECORD) for entry in folder.iterdir())
    if is_begun and (folder / RECORD).exists():
        record = read_record(folder)
        changed = setting_differences(record["settings"], json.loads(json.dumps(settings)))
        told = "; ".join(f"{name}: {before!r} there, {now!r} here" for name, (before, now) in changed.items())
        if any(name.split(".")[0] in _PLAN for name in changed):
            raise ValueError(f"{folder} holds other rows ({told}): choose another --output")
        if changed and not accept_changed:
            raise ValueError(
                f"{folder} was begun under other settings ({told}). Choose another --output, or go on with "
                "--accept-changed-config: rows say what made them"
            )
        if changed:
            change = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "settings": record["settings"]}
            record |= {"settings": settings, "accepted_changes": [*record.get("accepted_changes", []), change]}
            write_whole(folder / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    claim(folder, settings, packages=_PACKAGES, is_begun=is_begun)


def _price(settings: LanguageModel) -> Price:
    return settings.price if isinstance(settings, Endpoint) else Price()
