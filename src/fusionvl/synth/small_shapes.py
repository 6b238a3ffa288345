"""What ablations are measured on: an easy-VQA picture in one of four places, the rest empty, and where and what it is.

    FOLDER/images/KIND/0000000.png
    FOLDER/KIND.json
    FOLDER/mixture.yaml                    what a recipe takes
    FOLDER/provenance.json                 settings and versions

Pictures come from easy-VQA's train split alone: those to train on, or those held out of it. Answers follow from what
the data set says of each picture. A folder appears whole or not at all; stopped at any moment, the same command goes
on with the pictures that are there. Knows no model and no rows of the engine.
"""

import io
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from PIL import Image

from fusionvl.data import Sample, Turn, llava
from fusionvl.data.easy_vqa import EasyVqaImage, divide_train, load_split
from fusionvl.provenance import versions_of
from fusionvl.run_folder import UNFINISHED, write_whole, writing
from fusionvl.synth.scenes.things import Split

PLACES = ("top left", "top right", "bottom left", "bottom right")
SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
KINDS = ("SmallShape", "SmallColor", "SmallWhere")
"""What the first question of a sample asks; the others follow."""


@dataclass(frozen=True, slots=True)
class KnownShape:
    """One easy-VQA picture, of which shape and colour are known.

    Attributes:
        path: The image file.
        shape: One of `SHAPES`.
        colour: One of `COLOURS`.
    """

    path: Path
    shape: str
    colour: str


@dataclass(frozen=True, slots=True)
class SmallShapeSettings:
    """What all samples of a folder share.

    Attributes:
        count: Samples of each kind.
        turns: Questions of a sample: one of its kind, then others; at most 3.
        size: Pixels a side, an even number.
        seed: Another seed, other samples.
        split: `train` or `held-out`: of easy-VQA's train pictures.

    Raises:
        ValueError: When a number is out of range.
    """

    count: int = 2000
    turns: int = 1
    size: int = 96
    seed: int = 0
    split: Split = "train"

    def __post_init__(self) -> None:
        if self.count < 1 or not 1 <= self.turns <= len(KINDS):
            raise ValueError(f"count must be at least 1 and turns 1 to 3, got {self.count} and {self.turns}")
        if self.size < 16 or self.size % 2:
            raise ValueError(f"size must be an even number of at least 16 pixels, got {self.size}")


def write_small_shapes(folder: Path, settings: SmallShapeSettings) -> Path:
    """Write samples of every kind.

    Returns:
        The mixture file.

    Raises:
        ModuleNotFoundError: When the package `easy-vqa` is not installed.
        ValueError: When the folder is there already.
        CannotWriteError: When the disk is full or the place cannot be written.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists already; name another folder, or remove it")
    shapes = known_shapes(settings.split)
    unfinished = _begun(folder.with_name(f"{folder.name}.{UNFINISHED}"), settings)
    with writing(folder):
        for kind in KINDS:
            samples = _written(unfinished, kind, settings, shapes)
            llava.write_llava(unfinished / f"{kind}.json", samples, image_root=unfinished)
        entries = [{"json_path": f"{kind}.json", "sampling_strategy": "all"} for kind in KINDS]
        write_whole(unfinished / "mixture.yaml", yaml.safe_dump({"datasets": entries}, sort_keys=False))
        unfinished.rename(folder)
    return folder / "mixture.yaml"


def _begun(folder: Path, settings: SmallShapeSettings) -> Path:
    """The folder, with what is there of these settings and versions; what was begun under others is removed."""
    provenance = {"settings": asdict(settings), "versions": versions_of(("fusionvl", "easy-vqa", "pillow"))}
    record, text = folder / "provenance.json", json.dumps(provenance, indent=2) + "\n"
    if not record.is_file() or record.read_text() != text:
        shutil.rmtree(folder, ignore_errors=True)
        write_whole(record, text)
    return folder


def known_shapes(split: Split) -> list[KnownShape]:
    """The train pictures to train on, or those held out, whose questions tell both shape and colour."""
    train, held_out = divide_train(load_split("train"))
    shapes = (_known(image) for image in (train if split == "train" else held_out))
    return [shape for shape in shapes if shape is not None]


def _known(image: EasyVqaImage) -> KnownShape | None:
    answers = {turn.answer for turn in image.turns}
    shape = next((name for name in SHAPES if name in answers), None)
    colour = next((name for name in COLOURS if name in answers), None)
    return None if shape is None or colour is None else KnownShape(image.path, shape, colour)


def small_shape_sample(
    kind: str, number: int, settings: SmallShapeSettings, shapes: Sequence[KnownShape]
) -> tuple[KnownShape, str, tuple[Turn, ...]]:
    """A shape, its place and the questions; they follow from kind, number, seed and split alone."""
    draws = random.Random(f"composites/{settings.split}/{settings.seed}/{kind}/{number}")
    cells: list[KnownShape | None] = [*draws.sample(shapes, 1), None, None, None]
    draws.shuffle(cells)
    place, shape = next((place, cell) for place, cell in zip(PLACES, cells, strict=True) if cell is not None)
    asked = {
        "SmallShape": Turn("what shape is in the image?", shape.shape),
        "SmallColor": Turn("what color is the shape?", shape.colour),
        "SmallWhere": Turn("where is the shape?", place),
    }
    first = draws.choice([asked.pop(kind)])  # as if of several: the draws after it stay those of published results
    return shape, place, (first, *draws.sample(list(asked.values()), settings.turns - 1))


def draw_small_shape(shape: KnownShape, place: str, size: int) -> Image.Image:
    """A picture in its place; the rest has its ground."""
    half, number = size // 2, PLACES.index(place)
    with Image.open(shape.path) as picture:
        cell = picture.convert("RGB").resize((half, half), Image.Resampling.BICUBIC)
    page = cell.crop((0, 0, 1, 1)).resize((size, size))
    page.paste(cell, (number % 2 * half, number // 2 * half))
    return page


def _written(folder: Path, kind: str, settings: SmallShapeSettings, shapes: Sequence[KnownShape]) -> Iterator[Sample]:
    for number in range(settings.count):
        shape, place, turns = small_shape_sample(kind, number, settings, shapes)
        path = folder / "images" / kind / f"{number:07d}.png"
        if not path.exists():
            buffer = io.BytesIO()
            draw_small_shape(shape, place, settings.size).save(buffer, "PNG")
            write_whole(path, buffer.getvalue())
        yield Sample(id=f"{kind}-{number}", turns=turns, image=path, source=kind)
