"""Many samples on one picture, each with its conversation below: to look at data before training on it.

Knows images, conversations and mixtures; no graphs.
"""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from fusionvl.data import Sample, Turn
from fusionvl.data.mixture import open_mixture
from fusionvl.synth.scenes.fonts import font
from fusionvl.synth.scenes.scene_folder import MIXTURE

_MARGIN = 10
_TEXT, _LINE = 11, 14
_PAPER, _INK, _ANSWER = (255, 255, 255), (40, 40, 44), (0, 84, 160)

Line = tuple[str, tuple[int, int, int]]


def contact_sheet(
    samples: Iterable[tuple[str, Image.Image, Sequence[Turn]]], *, columns: int = 4, width: int = 256
) -> Image.Image:
    """Puts samples on a sheet.

    Args:
        samples: Title, image and conversation of each.
        columns: How many stand side by side.
        width: Pixels of each image on the sheet.

    Raises:
        ValueError: If there are no samples.
    """
    cards = [_card(title, image, turns, width) for title, image, turns in samples]
    if not cards:
        raise ValueError("a contact sheet needs at least one sample")
    rows = [cards[start : start + columns] for start in range(0, len(cards), columns)]
    heights = [max(card.height for card in row) + _MARGIN for row in rows]
    sheet = Image.new("RGB", (columns * (width + _MARGIN) + _MARGIN, sum(heights) + _MARGIN), _PAPER)
    y = _MARGIN
    for row, height in zip(rows, heights, strict=True):
        for index, card in enumerate(row):
            sheet.paste(card, (_MARGIN + index * (width + _MARGIN), y))
        y += height
    return sheet


def folder_sheet(folder: Path, *, each: int = 2, columns: int = 6) -> Image.Image:
    """Puts the first samples of every data set of a folder's mixture on a sheet.

    Args:
        folder: Holds mixture.yaml.
        each: Samples of each data set.
        columns: How many stand side by side.

    Raises:
        ValueError: If there is no mixture, or a sample has no image.
    """
    samples = [
        part.source.read(row, epoch=0, seed=0)
        for part in open_mixture(folder / MIXTURE, seed=0).parts
        for row in range(min(each, len(part.source)))
    ]
    return contact_sheet([(sample.id, _opened(sample), sample.turns) for sample in samples], columns=columns)


def _opened(sample: Sample) -> Image.Image:
    if not isinstance(sample.image, Path):
        raise ValueError(f"sample {sample.id!r} of {sample.source} has no image file; a sheet shows images")
    with Image.open(sample.image) as image:
        return image.convert("RGB")


def _card(title: str, image: Image.Image, turns: Sequence[Turn], width: int) -> Image.Image:
    lines = _lines(title, turns, letters=round(width / (_TEXT * 0.56)))
    picture = image.convert("RGB").resize((width, round(width * image.height / image.width)), Image.Resampling.LANCZOS)
    card = Image.new("RGB", (width, picture.height + _LINE * len(lines) + 6), _PAPER)
    card.paste(picture, (0, 0))
    draw = ImageDraw.Draw(card)
    for index, (text, colour) in enumerate(lines):
        draw.text((0, picture.height + 4 + index * _LINE), text, fill=colour, font=font("sans", _TEXT))
    return card


def _lines(title: str, turns: Sequence[Turn], letters: int) -> list[Line]:
    lines: list[Line] = [(title, (130, 130, 134))]
    for turn in turns:
        for text, colour in ((turn.question, _INK), (turn.answer, _ANSWER)):
            for paragraph in text.splitlines():
                lines += [(line, colour) for line in textwrap.wrap(paragraph, letters)]
    return lines
