"""What a kind of rows is: how its questions are written by a language model, and how a scene of it comes about.

Knows no kind by name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from fusionvl.synth.kinds.written import Conversation, Description, TwoDescriptions
from fusionvl.synth.rows import SynthTurn
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.scene_graph import Picture
from fusionvl.synth.scenes.things import Split


class Content(NamedTuple):
    """What a scene shows and what is asked about it."""

    picture: Picture
    turns: tuple[SynthTurn, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of rows.

    Attributes:
        name: What recipes and rows call it; its prompts are `describe/NAME` and `questions/NAME`.
        scene: Makes a scene of it, with exact questions and answers.
        asked: What a language model writes when it is asked for questions; None for a kind that is of scenes alone.
        pictures: How many pictures a row describes; two are drawn side by side in one image.
        needs_drawings: Whether its scenes show what artists have drawn.
    """

    name: str
    scene: Callable[[Draws, Split], Content]
    asked: type[Conversation] | None = None
    pictures: int = 1
    needs_drawings: bool = False

    @property
    def described(self) -> type[Description] | type[TwoDescriptions]:
        """What a language model writes when it is asked for a description."""
        return Description if self.pictures == 1 else TwoDescriptions
