"""The model card of a trained model: the `README.md` that a model hub shows, and a reader of the folder finds.

Knows recipes, stages and their log; knows no weights and no hub.
"""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCardData

from fusionvl.data.extras import locate
from fusionvl.run_folder import read_record, read_rows
from fusionvl.text_table import markdown
from fusionvl.train.config import ModelFromCheckpoint, ModelFromScratch, Recipe, dump_recipe
from fusionvl.train.metrics import METRICS
from fusionvl.train.stage import StageRun

_ACCURACY = "held_out_accuracy"
_CARD = """---
{metadata}
---

# {name}

A [FUSION](https://arxiv.org/abs/2504.09925): a multimodal language model in which the question guides the vision
encoder and latent tokens look at the picture again while the question is read. {start}

```
pip install fusionvl
fusionvl ask IMAGE QUESTION --model FOLDER_OR_NAME
```

After `import fusionvl.auto`, transformers' `AutoModelForImageTextToText` and `AutoProcessor` load it, and so does
`vllm serve` where fusionvl is installed.

## Data

{data}

## Held-out accuracy

{accuracy}

## Recipe

```yaml
{recipe}```

Made with {versions}.
"""


def model_card(recipe: Recipe, runs: Sequence[StageRun]) -> str:
    """Write the card of a run's result.

    Args:
        recipe: The run.
        runs: The stages of this command; what those before it were trained on is in the recipe alone.
    """
    names = _starts(recipe)
    hub_names = [name for name in names if _is_hub_name(name)]
    metadata = ModelCardData(
        base_model=hub_names or None,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["fusionvl", "fusion"],
    )
    record = read_record(runs[-1].output)
    versions = {**record["versions"], "commit": record["commit"]}
    return _CARD.format(
        metadata=metadata.to_yaml().strip(),
        name=recipe.name,
        start=f"It started from {' and '.join(_shown(name) for name in names) or 'fresh weights'}.",
        data=_data(runs),
        accuracy=_accuracy(recipe, runs),
        recipe=dump_recipe(recipe),
        versions=", ".join(f"{name} {version}" for name, version in versions.items() if version),
    )


def _starts(recipe: Recipe) -> list[str]:
    """What the weights were before the first stage."""
    if isinstance(recipe.model, ModelFromScratch):
        return []
    if isinstance(recipe.model, ModelFromCheckpoint):
        return [recipe.model.checkpoint]
    return [name for name in (recipe.model.decoder, recipe.model.vision) if isinstance(name, str)]


def _is_hub_name(name: str) -> bool:
    """Hubs refuse cards whose base model is a folder."""
    return locate(name) == name and not Path(name).exists()


def _shown(name: str) -> str:
    """A folder's last name alone: where it lies on a machine is nobody's business."""
    return f"`{name if _is_hub_name(name) else Path(name).name}`"


def _data(runs: Sequence[StageRun]) -> str:
    rows = [
        (run.stage.name, part.source.name, f"{len(part):,}", f"{run.steps:,}", str(run.stage.rows_of_a_step))
        for run in runs
        for part in run.mixture.parts
    ]
    return "\n".join(markdown(("stage", "data set", "rows", "steps", "rows a step"), rows, text_columns=2))


def _accuracy(recipe: Recipe, runs: Sequence[StageRun]) -> str:
    asked = len(runs[-1].held_out)
    measured = [row for row in read_rows(runs[-1].output / METRICS, dict) if _ACCURACY in row]
    if recipe.held_out is None or not measured:
        return "None was measured: the recipe holds nothing out."
    of_each = [
        f"{name.removeprefix(_ACCURACY).removeprefix('/')}: {share:.2%}"
        for name, share in measured[-1].items()
        if name.startswith(f"{_ACCURACY}/")
    ]
    where = "pictures of the same data" if recipe.held_out.share else "data"
    return "\n".join(
        [
            f"**{measured[-1][_ACCURACY]:.2%}** of {asked} questions about {where} that no stage was trained on, "
            "answered exactly as given, with greedy generation.",
            *(f"* {line}" for line in of_each),
        ]
    )
