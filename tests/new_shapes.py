"""Pictures of things that the shipped model has no name for, with questions in a CSV file: somebody's own data."""

import csv
import math
import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

Draw = Callable[[ImageDraw.ImageDraw, float, float, float, str], None]


def _star(draw, x, y, size, colour):
    corners = [(size if n % 2 else size * 0.4, math.pi * n / 5) for n in range(10)]
    draw.polygon([(x + r * math.sin(turn), y - r * math.cos(turn)) for r, turn in corners], fill=colour)


def _ring(draw, x, y, size, colour):
    draw.ellipse((x - size, y - size, x + size, y + size), outline=colour, width=round(size / 3))


def _cross(draw, x, y, size, colour):
    draw.rectangle((x - size, y - size / 4, x + size, y + size / 4), fill=colour)
    draw.rectangle((x - size / 4, y - size, x + size / 4, y + size), fill=colour)


NAMES: dict[str, Draw] = {"star": _star, "ring": _ring, "cross": _cross}
COLOURS = ("red", "blue", "green", "black", "teal")


def draw_new_shapes(folder: Path, pictures: int, seed: int = 0) -> Path:
    """Draw pictures, and write `questions.csv` beside them: two questions about each; returns that file."""
    generator = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(pictures):
        name, colour = generator.choice(list(NAMES)), generator.choice(COLOURS)
        size = generator.uniform(10, 20)
        image = Image.new("RGB", (64, 64), (240, 240, generator.randint(235, 255)))
        place = [generator.uniform(size, 64 - size) for _ in "xy"]
        NAMES[name](ImageDraw.Draw(image), *place, size, colour)
        image.save(folder / f"{number:03}.png")
        rows.append((f"{number:03}.png", "what shape is in the image?", name))
        rows.append((f"{number:03}.png", "what color is the shape?", colour))
    with (folder / "questions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "question", "answer"), *rows])
    return folder / "questions.csv"
