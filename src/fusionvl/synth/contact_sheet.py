"""Rows of a run on one picture, each image with its conversation below: to look at data before training on it."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from fusionvl.run_folder import read_record
from fusionvl.synth.filters.images import decoded
from fusionvl.synth.rows import Row, SynthTurn
from fusionvl.synth.scenes.fonts import font
from fusionvl.synth.shard_files import finished_rows

Example = tuple[Row, Image.Image]
"""A row with its image."""

_MARGIN = 10
_TEXT, _LINE = 11, 14
_PAPER, _INK, _ANSWER, _TITLE = (255, 255, 255), (40, 40, 44), (0, 84, 160), (130, 130, 134)


def write_sheet(folder: Path, path: Path, each: int, columns: int) -> None:
    """Puts so many sound rows of each kind of a run on a sheet, in the recipe's order.

    Raises:
        ValueError: When there is no finished shard, one cannot be read, or none of the rows has an image.
    """
    kinds = read_record(folder)["settings"]["rows"]
    rows = (row for row in finished_rows(folder) if row.status == "ok")
    contact_sheet(examples(folder, rows, kinds, each), columns).save(path)


def examples(folder: Path, rows: Iterable[Row], kinds: Mapping[str, int], each: int) -> list[Example]:
    """The first rows of each kind whose image can be opened, kind by kind. Reads no more rows than it takes.

    Args:
        folder: What image paths are relative to.
        rows: To be chosen from.
        kinds: How many rows of each kind there are.
        each: How many of each kind to take.
    """
    found: dict[str, list[Example]] = {kind: [] for kind in kinds}
    for row in (row for row in rows if row.kind in found):
        if len(found[row.kind]) < each and (image := decoded(row, folder)) is not None:
            found[row.kind].append((row, image))
            if all(len(own) == min(each, kinds[kind]) for kind, own in found.items()):
                break
    return [example for own in found.values() for example in own]


def contact_sheet(shown: Sequence[Example], columns: int = 6, width: int = 256) -> Image.Image:
    """Puts images with their conversations on a sheet.

    Args:
        shown: Rows with their images.
        columns: How many stand side by side.
        width: Pixels of each image on the sheet.

    Raises:
        ValueError: If there are none.
    """
    if not shown:
        raise ValueError("a contact sheet needs at least one sound row with an image")
    cards = [_card(row.kind, image, row.turns, width) for row, image in shown]
    rows = [cards[start : start + columns] for start in range(0, len(cards), columns)]
    heights = [max(card.height for card in row) + _MARGIN for row in rows]
    size = (min(columns, len(cards)) * (width + _MARGIN) + _MARGIN, sum(heights) + _MARGIN)
    sheet, y = Image.new("RGB", size, _PAPER), _MARGIN
    for row, height in zip(rows, heights, strict=True):
        for index, card in enumerate(row):
            sheet.paste(card, (_MARGIN + index * (width + _MARGIN), y))
        y += height
    return sheet


def _card(title: str, image: Image.Image, turns: Sequence[SynthTurn], width: int) -> Image.Image:
    letters = round(width / (_TEXT * 0.56))
    texts = [(title, _TITLE)]
    texts += [line for turn in turns for line in ((turn.question, _INK), (turn.answer, _ANSWER))]
    lines = [(line, colour) for text, colour in texts for line in _wrapped(text, letters)]
    height = round(width * image.height / image.width)
    card = Image.new("RGB", (width, height + _LINE * len(lines) + 6), _PAPER)
    card.paste(image.resize((width, height), Image.Resampling.LANCZOS), (0, 0))
    draw = ImageDraw.Draw(card)
    for index, (text, colour) in enumerate(lines):
        draw.text((0, height + 4 + index * _LINE), text, fill=colour, font=font("sans", _TEXT))
    return card


def _wrapped(text: str, letters: int) -> list[str]:
    return [line for paragraph in text.splitlines() for line in textwrap.wrap(paragraph, letters)]
