"""Drawings made by the tests: a rectangle for each thing, of its own colour and width, marked at its left."""

import json

from fusionvl.synth.scenes.drawn_things import characters

ARTISTS = ("a", "b")
MARK = (255, 0, 255)
_HEIGHT = 100


def colour_of(name, artist):
    """Of no background and no other drawing: strong red by one artist, strong green by the other."""
    number = list(characters()).index(name)
    first, second = 12 * (number % 18), 8 * (number // 18)
    return (240, first, second) if artist == "a" else (first, 190, second)


def width_of(name):
    """As a share of the height: from a half to two and a half."""
    return 0.5 + 2 * list(characters()).index(name) / len(characters())


def write_drawings(folder):
    """A folder as `scripts/fetch_drawings.py` writes it."""
    index = {artist: {"things": {}} for artist in ARTISTS}
    for artist in ARTISTS:
        (folder / artist).mkdir(parents=True)
        for number, name in enumerate(characters()):
            width = width_of(name) * _HEIGHT
            body = "".join(
                f'<rect x="10" y="10" width="{share * width}" height="{_HEIGHT}" fill="rgb{colour}"/>'
                for share, colour in ((1, colour_of(name, artist)), (0.25, MARK))
            )
            svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 30} {_HEIGHT + 40}">{body}</svg>'
            (folder / artist / f"{number}.svg").write_text(svg)
            index[artist]["things"][name] = [f"{number}.svg"]
    (folder / "index.json").write_text(json.dumps(index))
    return folder
