"""What a run writes down about itself: its recipe, the versions and the commit it ran with.

Knows recipes and the file system; knows no model and no training loop.
"""

import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from fusionvl.train.config import Recipe, dump_recipe
from fusionvl.train.disk import write_text

PACKAGES = ("fusionvl", "torch", "transformers", "tokenizers", "accelerate")


def claim(output: Path, recipe: Recipe) -> None:
    """Record what is run in this folder; another recipe must not go on with its checkpoints.

    A run that was refused before it began leaves the folder to its corrected recipe.

    Raises:
        ValueError: When the folder belongs to another recipe, or the disk is full.
    """
    output.mkdir(parents=True, exist_ok=True)
    recorded = output / "recipe.yaml"
    text = dump_recipe(recipe)
    begun = any(output.glob("stage-*")) or (output / "start").exists() or (output / "model").exists()
    if begun and recorded.exists() and recorded.read_text() != text:
        raise ValueError(
            f"{output} holds a run of another recipe (see {recorded}): choose another --output or remove it"
        )
    write_text(recorded, text)
    versions: dict[str, str | int | None] = {name: metadata.version(name) for name in PACKAGES}
    versions |= {"python": platform.python_version(), "commit": commit_of(Path(__file__)), "seed": recipe.seed}
    write_text(output / "versions.json", json.dumps(versions, indent=2) + "\n")


def commit_of(file: Path) -> str | None:
    """The commit of the checkout a file belongs to, `+changes` when that differs from it; None outside a checkout."""
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        head = _git(file.parent, "rev-parse", "HEAD")
        changes = _git(file.parent, "status", "--porcelain", "--untracked-files=no")
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git, no checkout, or one of something else
        return None
    return f"{head}+changes" if changes else head


def _git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return result.stdout.strip()
