"""Boards with text: how large, in which letters and colours.

Knows widths of letters by rule of thumb; the drawing fits the letters into the board exactly.
"""

from collections.abc import Sequence

from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.fonts import FONTS
from fusionvl.synth.scenes.palette import BACKDROPS, COLOURS, lab, visible_on
from fusionvl.synth.scenes.scene_graph import Background, Box, Scene, Sign

_LETTER_WIDTH, _LINE = 0.74, 1.3  # of the letters' height
_MARGIN = 0.9
_SMALLEST = 0.11
_LEGIBLE = 50  # difference in lightness of letters and board


def sign_scene(
    draws: Draws, background: Background, texts: Sequence[Sequence[str]], language: str = "English"
) -> Scene:
    """A board for each text, one below the other, no two of one colour."""
    height = 0.94 / len(texts)
    visible = visible_on(tuple(BACKDROPS[name] for name in background.names))
    boards = draws.shuffled([name for name in visible if _legible_on(name)])
    signs = []
    for index, lines in enumerate(texts):
        room = Box(0.03, 0.03 + index * height, 0.97, 0.02 + (index + 1) * height)
        signs.append(_sign(draws, tuple(lines), room, boards[index], language))
    return Scene(background, signs=tuple(signs))


def _sign(draws: Draws, lines: tuple[str, ...], room: Box, board: str, language: str) -> Sign:
    """A board somewhere in a room."""
    wide = max(len(line) for line in lines) * _LETTER_WIDTH + _MARGIN
    high = len(lines) * _LINE + _MARGIN
    largest = min(room.width / wide, room.height / high, 0.26)
    letter = draws.between(min(largest, _SMALLEST), largest)
    width, height = wide * letter, high * letter
    left = draws.between(room.left, room.right - width)
    top = draws.between(room.top, room.bottom - height)
    draws.one_of([board])  # nothing to choose any more; left out, all later choices would be others
    font, ink = draws.one_of(tuple(FONTS)), draws.one_of(_legible_on(board))
    return Sign(Box(left, top, left + width, top + height), lines, font, board, ink, language)


def _legible_on(board: str) -> list[str]:
    """The colours in which letters are easily read on a board."""
    lightness = lab(COLOURS[board])[0]
    return [name for name, colour in COLOURS.items() if abs(lab(colour)[0] - lightness) >= _LEGIBLE]
