"""A folder that belongs to the settings its contents were made with, so that what is there can be kept.

Knows a file of settings and whole files; knows no samples.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def claim(folder: Path, name: str, settings: Mapping[str, Any], what: str) -> None:
    """Make a folder for these settings, or go on in one of theirs.

    Args:
        folder: Made if it is not there.
        name: Of the file in it that holds the settings.
        settings: JSON.
        what: What the folder holds, for messages.

    Raises:
        ValueError: If the folder holds what other settings made, or something else.
    """
    path = folder / name
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        if theirs != settings:
            raise ValueError(f"{folder} holds {what} of {theirs}, not of {settings}; choose another folder")
        return
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds other files and no {name}; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda partial: partial.write_text(json.dumps(settings) + "\n", encoding="utf-8"))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it is there in full or not at all."""
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    write(partial)
    os.replace(partial, path)
