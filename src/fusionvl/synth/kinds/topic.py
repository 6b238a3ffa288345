"""A topic: what a scene is composed for, with all that can be asked about it. A kind for alignment has one."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

from fusionvl.synth.kinds.kind import Content
from fusionvl.synth.kinds.scene_question import SceneQuestion, drawn
from fusionvl.synth.rows import SynthTurn
from fusionvl.synth.scenes.descriptions import REQUESTS, describe
from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.scene_graph import Scene
from fusionvl.synth.scenes.things import Split


class Composed(NamedTuple):
    """A scene with what can be asked about it, and the question it was composed for, if any."""

    scene: Scene
    questions: list[SceneQuestion]
    purpose: SceneQuestion | None = None

    def chosen(self, draws: Draws, count: int) -> list[SceneQuestion]:
        """So many of the questions, the one it was composed for among them."""
        if self.purpose is None:
            return drawn(draws, self.questions, count)
        rest = [question for question in self.questions if question.text != self.purpose.text]
        return draws.shuffled([self.purpose, *drawn(draws, rest, count - 1)])

    def content(self, turns: Iterable[SynthTurn]) -> Content:
        """The scene with these of its questions."""
        return Content((self.scene,), tuple(turns))

    def description(self, draws: Draws) -> SynthTurn:
        """The request for a description, and one."""
        return SynthTurn(draws.one_of(REQUESTS), describe(self.scene, draws))


Topic: TypeAlias = Callable[[Draws, Split], Composed]


def aligned(topic: Topic) -> Callable[[Draws, Split], Content]:
    """A kind for alignment: a description half of the time, then questions, half of them answered in a sentence."""

    def scene(draws: Draws, split: Split) -> Content:
        composed = topic(draws, split)
        turns = [composed.description(draws)] if draws.chance(0.5) else []
        turns += [question.either(draws) for question in composed.chosen(draws, draws.integer(1, 3))]
        return composed.content(turns)

    return scene
