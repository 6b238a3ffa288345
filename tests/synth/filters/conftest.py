"""Drawn rows, run folders of them, and models that answer about them: enough to be filtered."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from fake_client import FakeClient
from PIL import Image, ImageDraw

from fusionvl.synth.rows import Row, SynthTurn, row_id
from fusionvl.synth.shard_files import ROW_SCHEMA, SHARD_FOLDER, shard_path, write_records

COLOURS = ("red", "green", "blue", "purple", "orange", "brown")
SHAPES = ("circle", "square")


def draw(path: Path, things: list[tuple[str, str]], seed: int) -> None:
    """Coloured circles and squares on light grey, in places that the seed decides."""
    draws = random.Random(seed)
    image = Image.new("RGB", (128, 128), (228, 230, 232))
    pen = ImageDraw.Draw(image)
    for place, (colour, shape) in zip(draws.sample(range(16), len(things)), things, strict=True):
        x, y, side = place % 4 * 32 + 2, place // 4 * 32 + 2, draws.randint(14, 27)
        box = (x, y, x + side, y + side)
        pen.ellipse(box, colour) if shape == "circle" else pen.rectangle(box, colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=92)


def count_row(folder: Path, number: int) -> Row:
    """How many shapes, of which colour; the image is drawn into the folder."""
    draws = random.Random(number)
    things = [(draws.choice(COLOURS), draws.choice(SHAPES)) for _ in range(draws.randint(2, 7))]
    name = row_id("drawn", "", "SynthCount", str(number))
    image = f"images/00000/{name}.jpg"
    draw(folder / image, things, number)
    colour, shape = things[0]
    same = sum(thing == things[0] for thing in things)
    turns = (
        SynthTurn("How many shapes are there?", str(len(things)), correct=str(len(things))),
        SynthTurn(f"What color is the first {shape}?", f"The {shape} is {colour}.", correct=colour),
        SynthTurn(f"How many {colour} {shape}s can you see?", str(same), correct=str(same)),
    )
    description = f"Picture {number} shows " + ", ".join(f"a {one} {other}" for one, other in things)
    return Row(name, "SynthCount", "shapes", description, image, turns, "ok", models={"scene": "drawn"})


def choice_row(folder: Path, number: int) -> Row:
    """A multiple choice with four options; letters are even over rows."""
    draws = random.Random(number)
    colour = draws.choice(COLOURS)
    name = row_id("drawn", "", "MultiChoice", str(number))
    image = f"images/00000/{name}.jpg"
    draw(folder / image, [(colour, draws.choice(SHAPES)) for _ in range(draws.randint(4, 9))], 10_000 + number)
    options = draws.sample([other for other in COLOURS if other != colour], 3)
    options.insert(number // 2 % 4, colour)
    lines = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
    letter = "ABCD"[number // 2 % 4]
    turn = SynthTurn(f"What color is shape {number}?\n{lines}", letter, tuple(options), letter)
    description = f"Drawing {number} is all {colour}, seen at {draws.random():.9f} of its height"
    return Row(name, "MultiChoice", "one color", description, image, (turn,), "ok", models={"scene": "drawn"})


class Runs:
    """Makes rows and finished run folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rows(self, count: int) -> list[Row]:
        """Rows of two kinds in turn, their images drawn."""
        return [(choice_row if number % 2 else count_row)(self.folder, number) for number in range(count)]

    def write(self, rows: list[Row], shards: int = 2) -> Path:
        """The run folder with these rows, in their order."""
        size = -(-len(rows) // shards)
        for shard in range(shards):
            part = [row.to_dict() for row in rows[shard * size : (shard + 1) * size]]
            write_records(shard_path(self.folder / SHARD_FOLDER, shard), part, ROW_SCHEMA)
        kinds = Counter(row.kind for row in rows)
        settings = {"source": "drawn", "split": "train", "seed": 0, "rows": kinds, "shard_size": size}
        (self.folder / "run.json").write_text(json.dumps({"settings": settings, "versions": {}}))
        return self.folder


@pytest.fixture
def answering(monkeypatch):
    """Puts a client in the place of the models that filters ask, whatever their names."""

    def place(client: FakeClient) -> FakeClient:
        monkeypatch.setattr("fusionvl.synth.filters.asking.open_client", lambda settings: client)
        return client

    return place


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """Rows and run folders, in a folder of their own."""
    return Runs(tmp_path / "run")
