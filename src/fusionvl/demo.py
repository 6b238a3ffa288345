"""The main job on real input: the shipped model answers questions about real images.

    make demo

Images come from the easy-VQA test split, which the model never saw, and from a picture of a photograph's size.
"""

import tempfile
import time
from pathlib import Path

from PIL import Image, ImageDraw

from fusionvl.data.easy_vqa import load_split
from fusionvl.engine import FusionEngine

TEST_IMAGES = (3, 77, 410, 888)
QUESTIONS_PER_IMAGE = 3


def demo() -> None:
    """Print image, question, answer, reference and time for a few questions."""
    engine = FusionEngine.from_pretrained()
    print("Images of the easy-VQA test split:")
    images = load_split("test")
    for number in TEST_IMAGES:
        image = images[number]
        for turn in image.turns[:QUESTIONS_PER_IMAGE]:
            _show(engine, image.path, turn.question, turn.answer)
    print("A picture of a photograph's size:")
    with tempfile.TemporaryDirectory() as folder:
        path = _draw_large_picture(Path(folder))
        for question, answer in (
            ("what shape is in the image?", "triangle"),
            ("what color is the triangle?", "red"),
            ("is there a blue shape?", "no"),
        ):
            _show(engine, path, question, answer)
    print(f"\nAsk your own: fusionvl ask IMAGE QUESTION (image features reused: {engine.cache.hits} times)")


def _show(engine: FusionEngine, path: Path, question: str, expected: str) -> None:
    start = time.perf_counter()
    answer = engine.ask(path, question)
    with Image.open(path) as image:
        size = f"{image.width}x{image.height}"
    milliseconds = 1000 * (time.perf_counter() - start)
    print(f"  {path.name:<12}{size:<11}{question:<42}{answer:<11}(expected {expected}) {milliseconds:5.0f} ms")


def _draw_large_picture(folder: Path) -> Path:
    picture = Image.new("RGB", (1600, 1200), (238, 236, 228))
    ImageDraw.Draw(picture).polygon([(500, 900), (1100, 900), (800, 380)], fill=(255, 0, 0))
    path = folder / "large.png"
    picture.save(path)
    return path
