"""Images on one picture, each with its conversation below: to look at data before training on it.

Knows no files and no kinds.
"""

import textwrap
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw

from fusionvl.synth.rows import SynthTurn
from fusionvl.synth.scenes.fonts import font

_MARGIN = 10
_TEXT, _LINE = 11, 14
_PAPER, _INK, _ANSWER, _TITLE = (255, 255, 255), (40, 40, 44), (0, 84, 160), (130, 130, 134)


def contact_sheet(
    shown: Iterable[tuple[str, Image.Image, Sequence[SynthTurn]]], *, columns: int = 6, width: int = 256
) -> Image.Image:
    """Puts images with their conversations on a sheet.

    Args:
        shown: Title, image and conversation of each.
        columns: How many stand side by side.
        width: Pixels of each image on the sheet.

    Raises:
        ValueError: If there are none.
    """
    cards = [_card(title, image, turns, width) for title, image, turns in shown]
    if not cards:
        raise ValueError("a contact sheet needs at least one sound row with an image")
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
    card.paste(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS), (0, 0))
    draw = ImageDraw.Draw(card)
    for index, (text, colour) in enumerate(lines):
        draw.text((0, height + 4 + index * _LINE), text, fill=colour, font=font("sans", _TEXT))
    return card


def _wrapped(text: str, letters: int) -> list[str]:
    return [line for paragraph in text.splitlines() for line in textwrap.wrap(paragraph, letters)]
