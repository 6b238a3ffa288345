"""Reads a typed recipe from YAML: what every kind of run (training, data, ablation) is described by.

Unknown and mistyped keys are errors. Knows dataclasses and files; knows no kind of recipe.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser

T = TypeVar("T")


def read_recipe(recipe_class: type[T], path: str | Path, overrides: list[str] | None = None) -> T:
    """Read a recipe.

    Args:
        recipe_class: A dataclass.
        path: A YAML file.
        overrides: `key.of.field=value`, applied over the file.

    Raises:
        ValueError: When the file is missing, a key is unknown, a value is of the wrong type, or the class refuses what
            it says; names file and key.
    """
    if not Path(path).is_file():
        raise ValueError(f"There is no recipe {path}")
    return _parsed(recipe_class, path, lambda parser: parser.parse_args([f"--recipe={path}", *_options(overrides)]))


def make_recipe(recipe_class: type[T], values: dict[str, Any], path: str | Path) -> T:
    """Make a recipe of values that were read from a file; see `read_recipe`.

    Raises:
        ValueError: As there.
    """
    return _parsed(recipe_class, path, lambda parser: parser.parse_object(values))


def _options(overrides: list[str] | None) -> list[str]:
    return [f"--{override}" for override in overrides or []]


def _parsed(recipe_class: type[T], path: str | Path, parse: Callable[[ArgumentParser], Any]) -> T:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--recipe", action="config")
    names = parser.add_class_arguments(recipe_class)
    try:
        values: dict[str, Any] = vars(parser.instantiate(parse(parser)))
        return recipe_class(**{name: values[name] for name in names})
    except (ArgumentError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
