"""Pictures of scene graphs: antialiased, at any size, the same for the same graph.

Shapes are painted through masks that are drawn larger and averaged down. Knows no language and chooses nothing.
"""

import functools
from collections.abc import Callable

from PIL import Image, ImageChops, ImageDraw

from fusionvl.synth.scenes.drawings import Drawings
from fusionvl.synth.scenes.drawn_things import DrawnThing
from fusionvl.synth.scenes.fonts import LINE_HEIGHT, fitting_size, font
from fusionvl.synth.scenes.landscape_drawing import draw_landscape
from fusionvl.synth.scenes.palette import BACKDROPS, COLOURS, Rgb, is_dark, mixed
from fusionvl.synth.scenes.scene_graph import Background, Box, Landscape, Picture, Scene, Sign, Thing
from fusionvl.synth.scenes.shapes import OUTLINES, Area

MIN_SIZE, MAX_SIZE = 64, 1024

_FINER = 4  # how much larger masks are drawn
_SEAM: Rgb = (150, 150, 150)  # between two scenes side by side
_PADDING = 0.08  # between board and text, of the board's lower side
_TEXTURED = 0.86  # of the diameter
_LIGHT_LINES: Rgb = (250, 250, 250)
_DARK_LINES: Rgb = (24, 24, 26)


def draw_picture(picture: Picture, size: int, drawings: Drawings | None = None) -> Image.Image:
    """Draws a picture.

    Args:
        picture: One scene, or two side by side.
        size: Pixels a side.
        drawings: What shows things that artists have drawn.

    Raises:
        ValueError: If the size is out of range, or a thing's drawing is missing.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(f"pictures are drawn at {MIN_SIZE} to {MAX_SIZE} pixels a side, not at {size}")
    image = Image.new("RGB", (size, size), _SEAM)
    for scene in picture:
        _draw_scene(image, scene, size, drawings)
    return image


def _draw_scene(image: Image.Image, scene: Scene, size: int, drawings: Drawings | None) -> None:
    left, top, right, bottom = pixel_box(scene.frame, size)
    behind = _behind(scene.background, (right - left, bottom - top), scene.frame.width)
    image.paste(behind, (left, top))
    for thing in scene.things:
        if isinstance(thing, DrawnThing):
            _paste_drawing(image, thing, size, drawings)
        else:
            _draw_thing(image, thing, size)
    for sign in scene.signs:
        _draw_sign(image, sign, size)


def pixel_box(box: Box, size: int) -> tuple[int, int, int, int]:
    """The box in whole pixels."""
    return round(box.left * size), round(box.top * size), round(box.right * size), round(box.bottom * size)


def _behind(background: Background | Landscape, extent: tuple[int, int], share: float) -> Image.Image:
    if isinstance(background, Landscape):
        return draw_landscape(background, extent[0])
    colours = [BACKDROPS[name] for name in background.names]
    if background.style == "fading":
        return Image.composite(
            Image.new("RGB", extent, colours[1]),
            Image.new("RGB", extent, colours[0]),
            Image.linear_gradient("L").resize(extent),
        )
    image = Image.new("RGB", extent, colours[0])
    if background.style == "checked":
        _paint_checks(ImageDraw.Draw(image), extent, max(2, round(extent[0] / share / 12)), colours[1])
    return image


def _paint_checks(draw: ImageDraw.ImageDraw, extent: tuple[int, int], side: int, colour: Rgb) -> None:
    for row, y in enumerate(range(0, extent[1], side)):
        for x in range(side * (row % 2), extent[0], 2 * side):
            draw.rectangle((x, y, x + side - 1, y + side - 1), fill=colour)


def _draw_thing(image: Image.Image, thing: Thing, size: int) -> None:
    diameter = max(1, round(thing.diameter * size))
    corner = (round(thing.box.left * size), round(thing.box.top * size))
    for colour, mask in _masks(thing.shape, diameter, thing.angle):
        image.paste(colour or thing.rgb, corner, mask)
        if colour is None and thing.texture != "plain":
            lines = _LIGHT_LINES if is_dark(thing.rgb) else _DARK_LINES
            image.paste(lines, corner, ImageChops.multiply(_pattern(thing.texture, diameter), _inner(mask)))


def _paste_drawing(image: Image.Image, thing: DrawnThing, size: int, drawings: Drawings | None) -> None:
    if drawings is None:
        raise ValueError(
            "the scene shows things that artists have drawn, and there are no drawings: fetch them with "
            "python scripts/fetch_drawings.py, and name their folder as images.drawings"
        )
    shown = drawings.image_of(thing, max(1, round(thing.diameter * size)))
    corner = (round(thing.x * size - shown.width / 2), round(thing.y * size - shown.height / 2))
    image.paste(shown, corner, shown)


def _inner(mask: Image.Image) -> Image.Image:
    """Where a mask is, and it would be if it were smaller: a texture ends short of the outline, which stays plain."""
    side = mask.width
    smaller = mask.resize((round(side * _TEXTURED),) * 2)
    inner = Image.new("L", mask.size)
    inner.paste(smaller, ((side - smaller.width) // 2,) * 2)
    return ImageChops.multiply(inner, mask)


@functools.lru_cache(512)
def _masks(shape: str, diameter: int, angle: int) -> tuple[tuple[Rgb | None, Image.Image], ...]:
    """What to paint one after the other: a fixed colour, or the thing's own, and where."""
    painted: list[tuple[Rgb | None, Image.Image]] = []
    for area in OUTLINES[shape]:
        if not area.cut:
            painted.append((area.colour, Image.new("L", (diameter * _FINER, diameter * _FINER))))
        ImageDraw.Draw(painted[-1][1]).polygon(_corners(area, diameter * _FINER), fill=0 if area.cut else 255)
    return tuple((colour, (mask.rotate(angle) if angle else mask).reduce(_FINER)) for colour, mask in painted)


def _corners(area: Area, side: int) -> list[tuple[float, float]]:
    return [((x + 0.5) * side, (y + 0.5) * side) for x, y in area.points]


@functools.lru_cache(256)
def _pattern(texture: str, diameter: int) -> Image.Image:
    """Where the lines, dots or checks of a texture are."""
    side = diameter * 2
    image = Image.new("L", (side, side))
    _PATTERNS[texture](ImageDraw.Draw(image), side)
    return image.reduce(2)


def _paint_stripes(draw: ImageDraw.ImageDraw, side: int) -> None:
    step = side / 5
    for index in range(-5, 6):
        x = (index + 0.25) * step
        draw.line((x, side, x + side, 0), fill=255, width=max(2, round(side / 14)))


def _paint_dots(draw: ImageDraw.ImageDraw, side: int) -> None:
    step, radius = side / 5, side / 17
    for row in range(6):
        for column in range(6):
            x, y = (column + (row % 2) / 2) * step, row * step
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)


def _paint_squares(draw: ImageDraw.ImageDraw, side: int) -> None:
    step = side / 6
    for row in range(6):
        for column in range(row % 2, 6, 2):
            x, y = column * step, row * step
            draw.rectangle((x, y, x + step - 1, y + step - 1), fill=255)


_PATTERNS: dict[str, Callable[[ImageDraw.ImageDraw, int], None]] = {
    "striped": _paint_stripes,
    "dotted": _paint_dots,
    "checked": _paint_squares,
}


def _draw_sign(image: Image.Image, sign: Sign, size: int) -> None:
    board, ink = COLOURS[sign.board], COLOURS[sign.ink]
    left, top, right, bottom = pixel_box(sign.box, size)
    draw = ImageDraw.Draw(image)
    edge = max(1, round(size / 128))
    draw.rectangle((left, top, right - 1, bottom - 1), fill=board, outline=mixed(board, ink, 0.6), width=edge)
    name, pixels = sign.font, text_size(sign, size)
    middle, line_height = (left + right) / 2, pixels * LINE_HEIGHT
    y = (top + bottom) / 2 - line_height * (len(sign.lines) - 1) / 2
    for line in sign.lines:
        face = font(name, pixels)
        start, _, end, _ = face.getbbox(line, anchor="lm")  # slanted letters reach beyond their widths
        draw.text((middle - (start + end) / 2, y), line, fill=ink, font=face, anchor="lm")
        y += line_height


def text_size(sign: Sign, size: int) -> int:
    """The letters' size in pixels in a picture of this size."""
    padding = 2 * max(_PADDING * min(sign.box.width, sign.box.height) * size, 2)
    return fitting_size(sign.font, sign.lines, sign.box.width * size - padding, sign.box.height * size - padding)
