"""A recipe's file and what the command line changes about it -> a `Recipe`, or an error that names file and key.

    load_recipe("recipes/fusion.yaml", ["stages.2.lora.rank=16"], model="8b")

A file may describe several models: what they share stands under `model`, what each has of its own under `models`, by
name. Knows YAML and recipes; knows no tensors and opens no data.
"""

import copy
import logging
from pathlib import Path
from typing import Any

import yaml

from fusionvl.data.recipe_file import make_recipe
from fusionvl.train.config import ModelFromCheckpoint, Recipe

logger = logging.getLogger(__name__)
_UNSET = object()


def load_recipe(path: str | Path, overrides: list[str] | None = None, model: str | None = None) -> Recipe:
    """Read a recipe; what an override changes is told in the log, old and new.

    Args:
        path: A YAML file.
        overrides: `key.of.field=value`, applied over the file. `stages.KEY=VALUE` is for every stage,
            `stages.NAME.KEY=VALUE` for one.
        model: Which of the file's `models`; its name is added to the recipe's.

    Raises:
        ValueError: When the file is missing, a key is unknown, a value is of the wrong type or cannot be trained, or
            there is no such model; names file and key.
    """
    if not Path(path).is_file():
        raise ValueError(f"There is no recipe {path}")
    try:
        values = _with_model(_read(Path(path)), model)
        for override in overrides or []:
            _override(values, override)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    recipe = make_recipe(Recipe, values, path)
    if not isinstance(recipe.model, ModelFromCheckpoint):
        from fusionvl.train.geometry import check_model  # transformers' configurations take a second

        try:
            check_model(recipe.model)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return recipe


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError("a recipe is a mapping of keys to values")
    if isinstance(values.get("stages"), list):  # a stage that YAML refers to again would change with the other
        values["stages"] = [copy.deepcopy(stage) for stage in values["stages"]]
    return values


def _with_model(values: dict[str, Any], name: str | None) -> dict[str, Any]:
    """The recipe of one of the file's models."""
    models = values.pop("models", None)
    if models is None:
        if name is not None:
            raise ValueError(f"describes one model: leave out --model {name}")
        return values
    if name not in models:
        raise ValueError(f"describes several models: choose one with --model {' | '.join(models)}")
    return {**values, "name": f"{values.get('name')}_{name}", "model": {**values.get("model", {}), **models[name]}}


def _override(values: dict[str, Any], override: str) -> None:
    """Set a value, in the recipe, in every stage or in one."""
    key, found, text = override.partition("=")
    if not found:
        raise ValueError(f"{override!r} is no KEY=VALUE")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{override!r}: the value is not YAML: {error}") from error
    if not key.startswith("stages."):
        _set(values, key, key, value)
        return
    rest, stages = key.removeprefix("stages."), values.get("stages") or []
    names = [str(stage.get("name")) for stage in stages]
    named = max((name for name in names if rest.startswith(f"{name}.")), key=len, default=None)
    own = rest if named is None else rest.removeprefix(f"{named}.")
    if own.partition(".")[0].isdigit():
        raise ValueError(f"{key}: there is no stage of that name, only {', '.join(names)}")
    for name, stage in zip(names, stages, strict=True):
        if named in (None, name):
            _set(stage, own, f"stages.{name}.{own}", value)


def _set(values: dict[str, Any], key: str, full_key: str, value: Any) -> None:
    """Set a value by its dotted key; groups that are not there are made."""
    *groups, last = key.split(".")
    for group in groups:
        if not isinstance(values.get(group), dict):
            values[group] = {}
        values = values[group]
    old = values.get(last, _UNSET)
    values[last] = value
    logger.info("%s: %s -> %s", full_key, "not in the file" if old is _UNSET else old, value)
