"""What a run folder says about itself, `run.json`: what its rows depend on, and the versions it began with.

A folder belongs to its settings: a run under others is refused unless the user says that it is meant. Which rows
there are, and in which shard, can never change. Knows recipes and no rows.
"""

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fusionvl.provenance import setting_differences, versions_of
from fusionvl.synth.recipe import SynthRecipe, identity

MANIFEST = "run.json"
_PACKAGES = ("fusionvl", "pillow", "pyarrow", "pydantic", "openai", "transformers", "diffusers", "torch")
_PLAN = ("rows", "captions", "captions_sha256", "source", "split", "seed", "shard_size")


def claim(folder: Path, recipe: SynthRecipe, prompts: dict[str, str], accept_changed: bool = False) -> None:
    """Begin a run in a folder, or go on with the one that is there. Any number of processes may do so at once.

    Args:
        folder: The run folder.
        recipe: What is to be run.
        prompts: The hash of every prompt in use, by its name.
        accept_changed: Whether rows may be added under settings other than the folder's; the manifest then says what
            was changed and when.

    Raises:
        ValueError: When the folder belongs to another plan, to other settings that were not accepted, or holds
            something else.
    """
    ours = _settings(recipe, prompts)
    path = folder / MANIFEST
    if not path.exists():
        if folder.exists() and any(_is_foreign(entry) for entry in folder.iterdir()) and not path.exists():
            raise ValueError(f"{folder} holds other files and no {MANIFEST}: choose another --output")
        folder.mkdir(parents=True, exist_ok=True)
        if _write_first(path, ours):
            return
    manifest = json.loads(path.read_text(encoding="utf-8"))
    changed = setting_differences(manifest["settings"], ours)
    if not changed:
        return
    told = "; ".join(f"{name}: {before!r} there, {now!r} here" for name, (before, now) in changed.items())
    if any(name.split(".")[0] in _PLAN for name in changed):
        raise ValueError(f"{folder} holds other rows ({told}): choose another --output")
    if not accept_changed:
        raise ValueError(
            f"{folder} was begun under other settings ({told}). Choose another --output, or go on with "
            "--accept-changed-config: rows say what made them"
        )
    manifest["accepted_changes"].append({"at": _now(), "settings": manifest["settings"]})
    _replace(path, manifest | {"settings": ours})


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a run folder says about itself.

    Raises:
        ValueError: When it is no run folder.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"{folder} is no folder of `fusionvl synth run`: it has no {MANIFEST}")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _settings(recipe: SynthRecipe, prompts: dict[str, str]) -> dict[str, Any]:
    settings = identity(recipe) | {"prompt_hashes": prompts}
    if recipe.captions is not None:
        with open(recipe.captions, "rb") as file:
            settings["captions_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        settings["captions"] = Path(recipe.captions).name  # the same file may lie elsewhere on another machine
    return settings


def _is_foreign(entry: Path) -> bool:
    """Whether it is no manifest that another process is just writing, or was killed while writing."""
    return not entry.match(f"{MANIFEST}*")


def _write_first(path: Path, settings: dict[str, Any]) -> bool:
    """Write the manifest unless another process was quicker; returns whether it was written."""
    manifest = {
        "settings": settings,
        "begun": _now(),
        "versions": versions_of(_PACKAGES),
        "accepted_changes": [],
    }
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.write_text(_text(manifest), encoding="utf-8")
    try:
        os.link(unfinished, path)
    except FileExistsError:
        return False
    finally:
        unfinished.unlink()
    return True


def _replace(path: Path, manifest: dict[str, Any]) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.write_text(_text(manifest), encoding="utf-8")
    os.replace(unfinished, path)


def _text(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
