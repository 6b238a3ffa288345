"""What a result was made with: versions of packages, the commit of a checkout, settings and where they differ.

Knows no runs and no folders.
"""

import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any


def versions_of(packages: Sequence[str]) -> dict[str, str | None]:
    """Installed versions of packages and of Python; None where a package is missing."""
    return {name: _version(name) for name in packages} | {"python": platform.python_version()}


def commit_of(file: Path) -> str | None:
    """The commit of the checkout a file belongs to, `+changes` when that differs from it; None outside a checkout."""
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        head = _git(file.parent, "rev-parse", "HEAD")
        changes = _git(file.parent, "status", "--porcelain", "--untracked-files=no")
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git, no checkout, or one of something else
        return None
    return f"{head}+changes" if changes else head


def setting_differences(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Every setting that differs, by its dotted name, as (theirs, ours); None stands for one that is not there."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in sorted(theirs.keys() | ours.keys()):
        before, now = theirs.get(name), ours.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            found |= setting_differences(before, now, f"{prefix}{name}.")
        elif before != now:
            found[prefix + name] = (before, now)
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return result.stdout.strip()
