"""A renderer in miniature, for tests of what is around one: a picture of one colour that follows from the id."""

from dataclasses import dataclass

from PIL import Image

from fusionvl.synth.rows import SynthTurn

COLOURS = ("red", "green", "blue", "yellow")


@dataclass(frozen=True)
class SmallScene:
    colour: str
    kind: str

    @property
    def description(self) -> str:
        return f"Everything is {self.colour}."

    @property
    def turns(self) -> list[SynthTurn]:
        return [SynthTurn(f"Which color is it? ({self.kind})", self.colour, correct=self.colour)]

    @property
    def truth(self) -> dict[str, str]:
        return {"colour": self.colour}

    def draw(self, size: int) -> Image.Image:
        return Image.new("RGB", (size, size), self.colour)


def make_small_scene(row: str, kind: str, split: str) -> SmallScene:
    return SmallScene(COLOURS[int(row, 16) % len(COLOURS)], kind)
