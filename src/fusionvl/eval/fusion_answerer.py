"""A FUSION that answers the questions of a test, through the engine. Knows no test and no score."""

from collections.abc import Sequence
from typing import Any

from fusionvl.engine import FusionEngine
from fusionvl.engine.engine import Answer, conversation
from fusionvl.eval.task import TaskQuestion


def how_asked(weights: str, dtype: str, num_latents: int) -> dict[str, Any]:
    """What a FUSION's answers depend on, however it is asked.

    Args:
        weights: See `model_fingerprint`.
        dtype: Number format of the weights.
        num_latents: Latent tokens of each question.
    """
    return {"through": "fusionvl", "weights": weights, "dtype": dtype, "num_latents": num_latents}


class FusionAnswerer:
    """A FUSION, through the engine: questions about one image share its features.

    Args:
        engine: What answers.
        name: For people.
        weights: See `model_fingerprint`.
        num_latents: Latent tokens of each question; None is the processor's default.
    """

    def __init__(self, engine: FusionEngine, name: str, weights: str, num_latents: int | None = None) -> None:
        self.name = name
        self._engine = engine
        self._weights = weights
        self._num_latents = engine.processor.num_latents if num_latents is None else num_latents

    def settings(self) -> dict[str, Any]:
        """Weights, dtype, latent tokens."""
        return how_asked(self._weights, self._engine.format.split()[0], self._num_latents)

    def answer(self, questions: Sequence[TaskQuestion], max_new_tokens: int) -> list[Answer]:
        """Answer a batch.

        Raises:
            ValueError: When an image cannot be used, or a question does not fit the context.
        """
        return self._engine.answer(
            [conversation(question.image, question.prompt) for question in questions],
            num_latents=self._num_latents,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
        )

    def image_reuse(self) -> tuple[int, int]:
        """Hits and misses of the engine's cache."""
        return self._engine.cache.hits, self._engine.cache.misses
