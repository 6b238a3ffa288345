"""Writes docs/reference/ from the code: every command from its parser, every key of a recipe from its dataclass.

    python scripts/reference.py

Run it after a change to either; a test compares. What stands in these pages is written where it is used: in the
parsers' help and in the docstrings.
"""

import argparse
import dataclasses
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fusionvl import cli
from fusionvl.ablation.recipe import AblationRecipe
from fusionvl.data.mixture_file import read_mixture_file
from fusionvl.data.sampling_strategy import Strategy
from fusionvl.synth.recipe import SynthRecipe
from fusionvl.train.config import Recipe
from fusionvl.train.encoder_recipe import EncoderRecipe

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
RECIPES = {  # by the command that takes them
    "train": Recipe,
    "train, stage 0": EncoderRecipe,
    "synth run": SynthRecipe,
    "ablate": AblationRecipe,
}
_MADE = "Made from the code by `python scripts/reference.py`."


def pages() -> dict[str, str]:
    """The pages by their file's name."""
    return {"commands.md": commands(), "recipe_keys.md": recipe_keys()}


def commands() -> str:
    """All commands, in the order of `fusionvl --help`."""
    sections = [f"# Commands\n\n{_MADE} `fusionvl COMMAND --help` says the same.\n"]
    for name, what, parser in _parsers(cli._parser(), "fusionvl"):
        rows = [
            (f"`{_called(action)}`", _default(action), _help(parser, action))
            for action in parser._actions
            if not isinstance(action, argparse._HelpAction)
        ]
        table = _table(("argument", "default", "what it is"), rows) if rows else ""
        sections.append(f"## {name}\n\n{what[:1].upper()}{what[1:]}.\n\n{table}".rstrip() + "\n")
    return "\n".join(sections)


def _parsers(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Those that take arguments: a command's name, what it does, its parser. argparse lists them in private names."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                own = action.choices[choice.dest]
                inner = list(_parsers(own, f"{name} {choice.dest}"))
                yield from inner or [(f"{name} {choice.dest}", choice.help or "", own)]


def _called(action: argparse.Action) -> str:
    """As a user writes it."""
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    value = value if isinstance(value, str) else " ".join(value)
    if action.nargs in ("+", "*") and "..." not in value:
        value = f"{value} ..."
    if action.option_strings:
        return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {value}")
    return f"[{value}]" if action.nargs == "?" else value


def _default(action: argparse.Action) -> str:
    is_said = action.nargs == 0 or action.default in (None, [], argparse.SUPPRESS) or "(default" in (action.help or "")
    return "" if is_said else f"`{action.default}`"


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return parser._get_formatter()._expand_help(action) if action.help else ""


def recipe_keys() -> str:
    """All keys of every kind of recipe, and of mixture files."""
    sections = [
        f"# Recipe keys\n\n{_MADE} A recipe is a YAML file; a key is replaced on the command line with `KEY=VALUE`, "
        "one inside another with `KEY.KEY=VALUE`. A key without a default must be given. Unknown keys are refused.\n"
    ]
    seen: set[type] = set()
    for command, recipe in RECIPES.items():
        sections.append(f"## Recipes of fusionvl {command}\n")
        sections += [_section(each) for each in _with_parts(recipe, seen)]
    for title, thing in (("Mixture files", read_mixture_file), ("sampling_strategy", Strategy)):
        _, told = _described(thing).split("\n\n", 1)
        sections.append(f"## {title}\n\n{told}\n")
    return "\n".join(sections)


def _with_parts(kind: type, seen: set[type]) -> Iterator[type]:
    """A dataclass and those that its fields hold, each once."""
    if kind in seen:
        return
    seen.add(kind)
    yield kind
    for hint in typing.get_type_hints(kind).values():
        for part in _dataclasses_in(hint):
            yield from _with_parts(part, seen)


def _dataclasses_in(hint: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(hint):
        yield typing.cast(type, hint)
    for inner in typing.get_args(hint):
        yield from _dataclasses_in(inner)


def _section(kind: type) -> str:
    documented, hints = _attributes(kind), typing.get_type_hints(kind)
    rows = [
        (f"`{entry.name}`", _shown(hints[entry.name]), _default_of(entry), documented[entry.name])
        for entry in dataclasses.fields(kind)
    ]
    table = _table(("key", "value", "default", "what it is"), rows)
    return f"### {kind.__name__}\n\n{_described(kind)}\n\n{table}\n"


def _shown(hint: Any) -> str:
    """A type in words; one that is a section of the page as a link."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_shown(each) for each in inner)
    if origin is list:
        return f"list of {_shown(inner[0])}"
    if origin is dict:
        return f"{_shown(inner[0])}: {_shown(inner[1])}"
    if dataclasses.is_dataclass(hint):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return {str: "text", float: "number", int: "whole number", bool: "true or false", types.NoneType: "null"}.get(
        hint, "anything"
    )


def _default_of(entry: "dataclasses.Field[Any]") -> str:
    if entry.default is not dataclasses.MISSING:
        return f"`{_as_yaml(entry.default)}`"
    if entry.default_factory is dataclasses.MISSING:
        return ""
    made = entry.default_factory()
    return "its defaults" if dataclasses.is_dataclass(made) else f"`{_as_yaml(made)}`"


def _as_yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")


def _described(thing: Any) -> str:
    """A docstring without the sections that are for programmers."""
    return re.split(r"\n\n(?:Attributes|Args|Raises|Returns):\n", inspect.getdoc(thing) or "")[0]


def _attributes(kind: type) -> dict[str, str]:
    """What the docstring says about each attribute, on one line."""
    section = re.search(r"^Attributes:\n((?: .*\n?|\n(?= ))+)", inspect.getdoc(kind) or "", re.MULTILINE)
    text = textwrap.dedent(section[1]) if section else ""
    entries = re.split(r"^(\w+): ", text, flags=re.MULTILINE)[1:]
    return {name: " ".join(said.split()) for name, said in zip(entries[::2], entries[1::2], strict=True)}


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table without padding: one changed word is one changed line."""
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)
