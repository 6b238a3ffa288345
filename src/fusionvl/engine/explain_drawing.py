"""Draws an `Explanation` with PIL alone: panels of the picture under a map of colour, each with a title and a scale.

Knows grids and spans; knows no model. One hue from pale to dark, so that it reads without colour, too.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from fusionvl.engine.explain import Explanation

PANEL = 288  # pixels of a panel's longer side
GAP = 20
TITLE = 44  # height of a panel's title: two lines
SCALE = 34  # height of a panel's scale and its numbers
COLUMNS = 4
TEXT_SIZE = 16
SMALL_TEXT_SIZE = 13
# From white over yellow and orange to dark brown: the order shows in grey and to colour-blind eyes as well.
COLOURS = np.array([[255, 255, 255], [254, 227, 145], [254, 153, 41], [204, 76, 2], [102, 37, 6]], dtype=float)
PALEST = 0.7  # brightness that black of the picture has under the colours

Panel = Image.Image


def draw(explanation: Explanation) -> Image.Image:
    """Draw question and answer, then columns of two panels: picture and guide; attention and update of each layer."""
    columns = [_panels_of_the_picture(explanation), *_panels_of_layers(explanation)]
    across = min(COLUMNS, max(len(columns), 2))
    width, height = columns[0][0].size
    rows = -(-len(columns) // across)
    header = _header(explanation, across * (width + GAP) - GAP)
    page = Image.new("RGB", (header.width + 2 * GAP, header.height + 2 * GAP + rows * 2 * (height + GAP)), "white")
    page.paste(header, (GAP, GAP))
    for number, column in enumerate(columns):
        row, place = divmod(number, across)
        for below, panel in enumerate(column):
            top = header.height + 2 * GAP + (2 * row + below) * (height + GAP)
            page.paste(panel, (GAP + place * (width + GAP), top))
    return page


def heat_map(grid: np.ndarray, spans: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Lay a grid of values over a picture.

    Args:
        grid: (K, K).
        spans: (K, 2) where its rows, and its columns, lie, in fractions of a side; they may overlap or leave gaps.
        size: Width and height of the picture in pixels.

    Returns:
        (height, width) float64; the mean of the values that cover a pixel, NaN where none does.
    """
    columns, rows = (_covers(spans, length) for length in size)
    total, count = rows @ grid @ columns.T, np.outer(rows.sum(1), columns.sum(1))
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _covers(spans: np.ndarray, length: int) -> np.ndarray:
    """(length, K): 1 where a span covers a pixel of a side, else 0."""
    starts, ends = np.rint(spans * length).T
    pixels = np.arange(length)[:, None]
    return ((starts <= pixels) & (pixels < ends)).astype(float)


def _panels_of_the_picture(explanation: Explanation) -> list[Panel]:
    picture = _small(explanation.image)
    windows = len(explanation.latent_spans) ** 2
    title = f"the picture, in {windows} windows" if windows else "the picture"
    panels = [_panel(title, _with_outlines(picture, explanation.latent_spans))]
    shift = explanation.guidance_shift
    if shift is not None:
        title = "how far the guide moved each patch\n(cosine distance from an empty guide)"
        panels.append(_map_panel(title, picture, shift, explanation.patch_spans, float(shift.max())))
    return panels


def _panels_of_layers(explanation: Explanation) -> list[list[Panel]]:
    """Attention and update of each layer; all attention on one scale, all updates on another."""
    if not explanation.layers:
        return []
    picture, latents = _small(explanation.image), explanation.latent_spans
    most_attention = max(float(layer.attention.max()) for layer in explanation.layers)
    largest_update = max(float(layer.update.max()) for layer in explanation.layers)
    even = 1 / explanation.layers[0].attention[0, 0].size
    columns = []
    for layer in explanation.layers:
        where = f"after decoder layer {layer.decoder_layer}:"
        title = f"{where} attention\nwithin each window (even: {even:.2f})"
        attention = _map_panel(
            title, picture, layer.attention_grid, explanation.position_spans, most_attention, latents
        )
        title = f"{where} what was added\nto each latent token, in its lengths"
        columns.append([attention, _map_panel(title, picture, layer.update, latents, largest_update, latents)])
    return columns


def _map_panel(
    title: str,
    picture: Image.Image,
    grid: np.ndarray,
    spans: np.ndarray,
    highest: float,
    outlines: np.ndarray | None = None,
) -> Panel:
    """The picture in pale grey, coloured by a grid of values between 0 and `highest`."""
    values = heat_map(grid, spans, picture.size)
    grey = ImageOps.autocontrast(picture.convert("L"))  # a yellow shape on a pale ground would vanish
    paper = PALEST + (1 - PALEST) * np.asarray(grey, dtype=float)[..., None] / 255
    coloured = Image.fromarray((paper * _colours(np.nan_to_num(values), highest)).round().astype(np.uint8))
    return _panel(title, _with_outlines(coloured, outlines), highest)


def _panel(title: str, picture: Image.Image, highest: float | None = None) -> Panel:
    panel = Image.new("RGB", (PANEL, TITLE + picture.height + SCALE), "white")
    pen = ImageDraw.Draw(panel)
    pen.multiline_text((0, TITLE - 6), title, "black", _font(SMALL_TEXT_SIZE), anchor="ld", spacing=3)
    panel.paste(picture, (0, TITLE))
    if highest is not None:
        top = TITLE + picture.height + 4
        ramp = _colours(np.linspace(0, highest, PANEL)[None].repeat(10, 0), highest)
        panel.paste(Image.fromarray(ramp.round().astype(np.uint8)), (0, top))
        pen.text((0, top + 12), "0", "black", _font(SMALL_TEXT_SIZE))
        pen.text((PANEL, top + 12), f"{highest:.2g}", "black", _font(SMALL_TEXT_SIZE), anchor="ra")
    return panel


def _with_outlines(picture: Image.Image, spans: np.ndarray | None) -> Image.Image:
    """A dark line with a white one inside around every cell: visible on any ground."""
    if spans is None or not len(spans):
        return picture
    outlined = picture.copy()
    pen = ImageDraw.Draw(outlined)
    for colour, line in (("white", 2), ("black", 1)):
        for top, bottom in np.rint(spans * picture.height).astype(int).tolist():
            for left, right in np.rint(spans * picture.width).astype(int).tolist():
                pen.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=line)
    return outlined


def _header(explanation: Explanation, width: int) -> Image.Image:
    lines = [*_wrapped(f"Question: {explanation.question}", width), *_wrapped(f"Answer: {explanation.answer}", width)]
    lines += [line for sentence in explanation.missing for line in _wrapped(sentence, width)]
    header = Image.new("RGB", (width, len(lines) * (TEXT_SIZE + 6)), "white")
    pen = ImageDraw.Draw(header)
    for number, line in enumerate(lines):
        pen.text((0, number * (TEXT_SIZE + 6)), line, "black", _font(TEXT_SIZE))
    return header


def _wrapped(text: str, width: int) -> Sequence[str]:
    return textwrap.wrap(text, width=int(width / (0.56 * TEXT_SIZE)), max_lines=4)


def _small(image: Image.Image) -> Image.Image:
    scale = PANEL / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _colours(values: np.ndarray, highest: float) -> np.ndarray:
    """Values (...) between 0 and `highest` as RGB (..., 3) between 0 and 255."""
    share = values / (highest or 1.0)  # where all is 0, all is pale
    anchors = np.linspace(0, 1, len(COLOURS))
    return np.stack([np.interp(share, anchors, channel) for channel in COLOURS.T], axis=-1)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
