"""Where the model that comes with the package lies. Knows a folder's name; loads nothing."""

from importlib import resources
from pathlib import Path


def shipped_model() -> Path:
    """The folder of the model that comes with the package."""
    return Path(str(resources.files("fusionvl") / "assets" / "nano"))
