"""What a model may be called by: a folder, the shipped one among them, or a hub name. Loads nothing."""

from importlib import resources
from pathlib import Path


def shipped_model() -> Path:
    """The folder of the model that comes with the package."""
    return Path(str(resources.files("fusionvl") / "assets" / "nano"))


def check_source(source: str) -> None:
    """Refuse what is written like a folder and is none; whether a hub name exists shows when it is loaded.

    Raises:
        ValueError: When there is no such folder.
    """
    looks_like_folder = source.startswith(("/", ".", "~")) or source.count("/") > 1
    if looks_like_folder and not Path(source).is_dir():
        raise ValueError(f"There is no folder {source}")
