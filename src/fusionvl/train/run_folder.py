"""What a run writes down about itself: its recipe, the versions and the commit it ran with.

Knows recipes and the file system; knows no model and no training loop.
"""

import json
from pathlib import Path

from fusionvl.provenance import commit_of, versions_of
from fusionvl.train.config import Recipe, dump_recipe, load_recipe
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
    begun = any(output.glob("stage-*")) or (output / "start").exists() or (output / "model").exists()
    if begun and recorded.exists() and load_recipe(recorded) != recipe:  # not as text: fields come with time
        raise ValueError(
            f"{output} holds a run of another recipe (see {recorded}): choose another --output or remove it"
        )
    write_text(recorded, dump_recipe(recipe))
    versions: dict[str, str | int | None] = {**versions_of(PACKAGES)}
    versions |= {"commit": commit_of(Path(__file__)), "seed": recipe.seed}
    write_text(output / "versions.json", json.dumps(versions, indent=2) + "\n")
