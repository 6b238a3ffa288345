"""What is scored: anything that answers a batch of questions about images, greedily. Knows no model and no score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from fusionvl.eval.task import Question


@dataclass(frozen=True)
class Reply:
    """A model's answer.

    Attributes:
        text: Its words, without special tokens.
        finish_reason: `stop` when the model ended its turn, `length` when it ran out of new tokens.
    """

    text: str
    finish_reason: Literal["stop", "length"]


class Answerer(Protocol):
    """Answers questions.

    Attributes:
        name: For people.
    """

    name: str

    def settings(self) -> dict[str, Any]:
        """All that its answers depend on, to tell whether two runs may be one; JSON."""
        ...

    def answer(self, questions: Sequence[Question], max_new_tokens: int) -> list[Reply]:
        """Answer a batch, greedily.

        Raises:
            ValueError: When a question or its image cannot be used.
        """
        ...

    def image_reuse(self) -> tuple[int, int]:
        """How often the features of an image were known already, and how often they were computed."""
        ...
