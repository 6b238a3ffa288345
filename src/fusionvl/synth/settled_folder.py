"""A folder that belongs to the settings its contents were made with, so that what is there can be kept.

Knows a file of settings, a lock and whole files; knows no samples.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

_LOCK = ".lock"


@contextmanager
def claimed(folder: Path, name: str, settings: Mapping[str, Any], what: str) -> Iterator[None]:
    """Make a folder for these settings, or go on in one of theirs; for one writer at a time.

    Args:
        folder: Made if it is not there.
        name: Of the file in it that holds the settings.
        settings: JSON.
        what: What the folder holds, for messages.

    Raises:
        ValueError: If the folder holds what other settings made, or something else, or another process writes into it.
    """
    _check(folder, name, settings, what)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"another process is writing {what} into {folder}: wait until it has ended, or choose another folder"
        ) from error
    try:
        _check(folder, name, settings, what)  # another process may have been faster
        path = folder / name
        if not path.exists():
            write_whole(path, lambda partial: partial.write_text(json.dumps(settings) + "\n", encoding="utf-8"))
        yield
    finally:
        lock.release()


def _check(folder: Path, name: str, settings: Mapping[str, Any], what: str) -> None:
    path = folder / name
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        if theirs != settings:
            raise ValueError(f"{folder} holds {what} of {theirs}, not of {settings}; choose another folder")
    elif folder.exists() and any(other.name != _LOCK for other in folder.iterdir()):
        raise ValueError(f"{folder} holds other files and no {name}; choose another folder")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it is there in full or not at all."""
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    write(partial)
    os.replace(partial, path)
