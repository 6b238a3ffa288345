"""easy-VQA pictures put together two by two, with questions about them: a step up in detail from easy-VQA itself.

With four pictures a question is about one of four places; with one the rest is empty, and the shape is small.

    FOLDER/composites.json                 settings, which every sample in the folder shares
    FOLDER/images/KIND/0000000.png
    FOLDER/KIND.json                       complete or not there
    FOLDER/mixture.yaml                    what a recipe takes

Pictures come from easy-VQA's train split alone: those to train on, or those held out of it. Answers follow from what
the data set says of each picture. Knows no model.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import yaml
from PIL import Image
from tqdm import tqdm

from fusionvl.data import Sample, Turn, llava
from fusionvl.data.easy_vqa import EasyVqaImage, divide_train, load_split
from fusionvl.synth.settled_folder import claimed, write_whole

Split: TypeAlias = Literal["train", "held-out"]
PLACES = ("top left", "top right", "bottom left", "bottom right")
SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
MIXTURE = "mixture.yaml"
_SETTINGS = "composites.json"


@dataclass(frozen=True, slots=True)
class Part:
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
class CompositeSettings:
    """What all samples of a folder share.

    Attributes:
        count: Samples of each kind.
        parts: Pictures in a sample: 4, or 1 among empty places.
        turns: Questions of a sample: one of its kind, then others of any kind; at most 4, or 3 about one picture.
        size: Pixels a side, an even number.
        seed: Another seed, other samples.
        split: `train` or `held-out`: of easy-VQA's train pictures.

    Raises:
        ValueError: When a number is out of range.
    """

    count: int
    parts: int
    turns: int
    size: int
    seed: int
    split: Split

    def __post_init__(self) -> None:
        if self.parts not in KINDS:
            raise ValueError(f"a sample shows 1 or 4 pictures, not {self.parts}")
        most = 3 if self.parts == 1 else 4
        if self.count < 1 or not 1 <= self.turns <= most:
            raise ValueError(f"count must be at least 1 and turns 1 to {most}, got {self.count} and {self.turns}")
        if self.size < 16 or self.size % 2:
            raise ValueError(f"size must be an even number of at least 16 pixels, got {self.size}")


def write_composites(folder: Path, settings: CompositeSettings) -> Path:
    """Write samples of every kind; what is there in full is kept.

    Returns:
        The mixture file.

    Raises:
        ModuleNotFoundError: When the package `easy-vqa` is not installed.
        ValueError: When the folder holds something else, or another process writes into it.
    """
    with claimed(folder, _SETTINGS, asdict(settings), "composites"):
        return _write_missing(folder, settings)


def _write_missing(folder: Path, settings: CompositeSettings) -> Path:
    parts, kinds = known_parts(settings.split), KINDS[settings.parts]
    missing = [kind for kind in kinds if not (folder / f"{kind}.json").exists()]
    with tqdm(total=settings.count * len(missing), unit="sample", desc="Composing") as bar:
        for kind in missing:
            samples = _written(folder, kind, settings, parts, bar.update)
            write_whole(folder / f"{kind}.json", lambda path, s=samples: llava.write_llava(path, s, image_root=folder))  # type: ignore[misc]
    content = {"datasets": [{"json_path": f"{kind}.json", "sampling_strategy": "all"} for kind in kinds]}
    text = yaml.safe_dump(content, sort_keys=False)
    write_whole(folder / MIXTURE, lambda path: path.write_text(text, encoding="utf-8"))
    return folder / MIXTURE


def known_parts(split: Split) -> list[Part]:
    """The train pictures to train on, or those held out, whose questions tell both shape and colour."""
    train, held_out = divide_train(load_split("train"))
    parts = (_part(image) for image in (train if split == "train" else held_out))
    return [part for part in parts if part is not None]


def compose(parts: Sequence[Part | None], size: int) -> Image.Image:
    """Put pictures into one of `size` pixels a side, in the order of `PLACES`; None is an empty place.

    Empty places have the ground of the first picture.
    """
    half = size // 2
    cells = [None if part is None else _cell(part, half) for part in parts]
    ground = next(cell for cell in cells if cell is not None).crop((0, 0, 1, 1))
    page = ground.resize((size, size))
    for number, cell in enumerate(cells):
        if cell is not None:
            page.paste(cell, (number % 2 * half, number // 2 * half))
    return page


def _cell(part: Part, side: int) -> Image.Image:
    with Image.open(part.path) as picture:
        return picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)


Asking: TypeAlias = Callable[[Sequence[Part | None]], list[Turn]]


def _shapes(parts: Sequence[Part | None]) -> list[Turn]:
    return [Turn(f"what shape is in the {place}?", part.shape) for place, part in _placed(parts)]


def _colours(parts: Sequence[Part | None]) -> list[Turn]:
    return [Turn(f"what color is the shape in the {place}?", part.colour) for place, part in _placed(parts)]


def _counts(parts: Sequence[Part | None]) -> list[Turn]:
    shapes, colours = zip(*((part.shape, part.colour) for _, part in _placed(parts)), strict=True)
    turns = [Turn(f"how many {shape}s are there?", str(shapes.count(shape))) for shape in SHAPES]
    return [*turns, *(Turn(f"how many {c} shapes are there?", str(colours.count(c))) for c in dict.fromkeys(colours))]


def _places(parts: Sequence[Part | None]) -> list[Turn]:
    """Where each part is that shape and colour tell from the others; parts may be too alike for any question."""
    names = [(place, f"{part.colour} {part.shape}") for place, part in _placed(parts)]
    all_names = [name for _, name in names]
    return [Turn(f"where is the {name}?", place) for place, name in names if all_names.count(name) == 1]


def _placed(parts: Sequence[Part | None]) -> list[tuple[str, Part]]:
    return [(place, part) for place, part in zip(PLACES, parts, strict=True) if part is not None]


KINDS: dict[int, dict[str, Asking]] = {
    1: {
        "SmallShape": lambda parts: [Turn("what shape is in the image?", part.shape) for _, part in _placed(parts)],
        "SmallColor": lambda parts: [Turn("what color is the shape?", part.colour) for _, part in _placed(parts)],
        "SmallWhere": lambda parts: [Turn("where is the shape?", place) for place, _ in _placed(parts)],
    },
    4: {
        "CompositeShape": _shapes,
        "CompositeColor": _colours,
        "CompositeCount": _counts,
        "CompositeWhere": _places,
    },
}
"""What is asked, by the number of pictures and by kind."""


def composite_sample(
    kind: str, number: int, settings: CompositeSettings, parts: Sequence[Part]
) -> tuple[list[Part | None], tuple[Turn, ...]]:
    """The parts in their places and the questions; they follow from kind, number, seed and split alone."""
    draws = random.Random(f"composites/{settings.split}/{settings.seed}/{kind}/{number}")
    kinds = KINDS[settings.parts]
    while True:
        empty: list[Part | None] = [None] * (len(PLACES) - settings.parts)
        chosen = [*draws.sample(parts, settings.parts), *empty]
        draws.shuffle(chosen)
        own = kinds[kind](chosen)
        if own:
            first = draws.choice(own)
            rest = [turn for asking in kinds.values() for turn in asking(chosen) if turn != first]
            return chosen, (first, *draws.sample(rest, settings.turns - 1))


def _written(
    folder: Path, kind: str, settings: CompositeSettings, parts: Sequence[Part], done: Callable[[], object]
) -> Iterator[Sample]:
    for number in range(settings.count):
        chosen, turns = composite_sample(kind, number, settings, parts)
        path = folder / "images" / kind / f"{number:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        compose(chosen, settings.size).save(path)
        done()
        yield Sample(id=f"{kind}-{number}", turns=turns, image=path, source=kind)


def _part(image: EasyVqaImage) -> Part | None:
    answers = {turn.answer for turn in image.turns}
    shape = next((name for name in SHAPES if name in answers), None)
    colour = next((name for name in COLOURS if name in answers), None)
    return None if shape is None or colour is None else Part(image.path, shape, colour)
