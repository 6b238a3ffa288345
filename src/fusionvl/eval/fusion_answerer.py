"""A FUSION that answers the questions of a benchmark, through the engine. Knows no benchmark and no score."""

from collections.abc import Sequence
from typing import Any

from fusionvl.engine import FusionEngine
from fusionvl.engine.engine import conversation
from fusionvl.eval.answerer import Reply
from fusionvl.eval.fingerprint import fingerprint
from fusionvl.eval.task import Question


class FusionAnswerer:
    """A FUSION, through the engine: questions about one image share its features.

    Args:
        engine: What answers.
        name: For people.
        num_latents: Latent tokens of each question; None is the processor's default.
    """

    def __init__(self, engine: FusionEngine, name: str, num_latents: int | None = None) -> None:
        self.name = name
        self._engine = engine
        self._num_latents = engine.processor.num_latents if num_latents is None else num_latents
        self._fingerprint = fingerprint(engine.model)

    def settings(self) -> dict[str, Any]:
        """Weights, dtype, latent tokens."""
        return {
            "through": "fusionvl",
            "weights": self._fingerprint,
            "dtype": self._engine.format.split()[0],
            "num_latents": self._num_latents,
        }

    def answer(self, questions: Sequence[Question], max_new_tokens: int) -> list[Reply]:
        """Answer a batch.

        Raises:
            ValueError: When an image cannot be used, or a question does not fit the context.
        """
        answers = self._engine.answer(
            [conversation(question.image, question.prompt) for question in questions],
            num_latents=self._num_latents,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
        )
        return [Reply(answer.text, answer.finish_reason) for answer in answers]

    def image_reuse(self) -> tuple[int, int]:
        """Hits and misses of the engine's cache."""
        return self._engine.cache.hits, self._engine.cache.misses
