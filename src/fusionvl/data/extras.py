"""Imports what only some users need, and tells the others how to install it.

Knows the names of the package's extras.
"""

import importlib
from types import ModuleType


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
