"""What the data of an ablation hold: runs on other data are not put into one table.

Knows the files that rows are in; pictures in files of their own are not looked at.
"""

import hashlib
from pathlib import Path

from fusionvl.ablation.recipe import AblationRecipe
from fusionvl.data.mixture_file import read_mixture_file
from fusionvl.train.config import MixtureData


def data_digest(recipe: AblationRecipe) -> str:
    """Of the contents of all files with training data and questions, in 16 hexadecimal digits.

    Raises:
        ValueError: When a mixture or one of its files is missing.
    """
    digests = [
        _of_file(path)
        for data in (*(stage.data for stage in recipe.training.stages), recipe.questions.data)
        for path in _files(data)
    ]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def _files(data: MixtureData) -> list[Path]:
    images = None if data.image_folder is None else Path(data.image_folder)
    description = {"datasets": data.datasets} if data.path is None else Path(data.path)
    return [path for entry in read_mixture_file(description, image_folder=images) for path in entry.files]


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
