"""What an ablation is: one training recipe, the variants of it, the seeds, and the questions asked at the end.

Read from YAML; unknown or mistyped keys are errors, with the file and the key. Knows no tensors and opens no data.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fusionvl.data.recipe_file import read_recipe
from fusionvl.train.config import MixtureData, ModelFromScratch, Recipe


@dataclass
class Variant:
    """One row of the table: what it changes about the training recipe.

    Attributes:
        name: Names the row and the folder.
        fusion: Fields of `FusionConfig` to replace.
        num_latents: Counts of latent tokens in every stage in place of the recipe's; a variant without interaction
            layers has none whatever stands here.
    """

    name: str
    fusion: dict[str, Any] = field(default_factory=dict)
    num_latents: list[int] | None = None


@dataclass
class Questions:
    """What every model is asked when it is trained; an answer counts when it is exactly the given one.

    Attributes:
        data: Where the questions come from; each is asked alone. Its data sets are the kinds of the table.
        limit: Ask only so many samples, None: all.
        max_new_tokens: Bound on each answer.
        batch_size: Questions of a batch.
    """

    data: MixtureData
    limit: int | None = None
    max_new_tokens: int = 16
    batch_size: int = 32


@dataclass
class AblationRecipe:
    """An ablation.

    Attributes:
        name: Names the output folder.
        training: The training of the first variant, as a recipe of its own; always from scratch.
        questions: What is asked at the end.
        variants: In the table's order; the others are compared with the first.
        seeds: Each variant is trained once with each: weights, order and counts of latent tokens follow from it.
    """

    name: str
    training: Recipe
    questions: Questions
    variants: list[Variant]
    seeds: list[int]

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if not names or len(names) != len(set(names)):
            raise ValueError(f"variants need different names, at least one of them, not {names}")
        unfit = [name for name in names if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is None]
        if unfit:
            raise ValueError(f"variants name folders: letters, digits, '.', '_' and '-' only, not {unfit[0]!r}")
        if not self.seeds or len(self.seeds) != len(set(self.seeds)):
            raise ValueError(f"seeds must be different, at least one of them, not {self.seeds}")
        if not isinstance(self.training.model, ModelFromScratch):
            raise ValueError(
                f"training.model must be from scratch (kind: scratch), not {self.training.model.kind}: what is "
                f"trained already was trained with the ideas on"
            )


def training_recipe(recipe: AblationRecipe, variant: Variant, seed: int) -> Recipe:
    """The training of one variant with one seed, not yet widened to the first variant's parameters."""
    model = recipe.training.model
    assert isinstance(model, ModelFromScratch)
    fusion = {**model.fusion, **variant.fusion}
    stages = recipe.training.stages
    if fusion.get("num_interaction_layers") == 0:
        stages = [replace(stage, num_latents=[0]) for stage in stages]
    elif variant.num_latents is not None:
        stages = [replace(stage, num_latents=variant.num_latents) for stage in stages]
    return replace(
        recipe.training, name=f"{variant.name}-{seed}", model=replace(model, fusion=fusion), stages=stages, seed=seed
    )


def load_ablation(path: str | Path, overrides: list[str] | None = None) -> AblationRecipe:
    """Read an ablation's recipe.

    Args:
        path: A YAML file.
        overrides: `key.of.field=value`, applied over the file.

    Raises:
        ValueError: When the file is missing, a key is unknown or a value is of the wrong type; names file and key.
    """
    return read_recipe(AblationRecipe, path, overrides)
