"""What a test is: questions, how an answer to one is scored, and by what the scores are told apart.

Knows no model and no file; the tests are in `eval/tasks/`, asking is in `own_run.py`.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class TaskQuestion:
    """One question of a test.

    Attributes:
        id: Unique in the test.
        prompt: What the model is asked, word for word.
        image: A path, bytes or PIL image, or None.
        image_id: Equal for questions about the same image; they are asked next to each other and share its features.
        reference: What the scorer compares with; JSON.
        details: What else the scorer or a reader needs (kind, options); JSON.
    """

    id: str
    prompt: str
    image: Any
    image_id: str
    reference: Any
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mark:
    """What a scorer says of one answer.

    Attributes:
        parsed: What was understood of the answer (a letter, yes or no, a number), None when nothing could be.
        score: From 0 to 1; an answer that cannot be understood has 0.
        reason: Why nothing was understood; empty otherwise.
    """

    parsed: str | None
    score: float
    reason: str = ""


@dataclass(frozen=True)
class ScoredAnswer:
    """One line of `samples.jsonl`: a question, what the model said and what it was worth.

    Attributes:
        id: The question's, as `prompt`, `reference`, `details` and `image_id` are.
        prompt: As asked.
        output: The model's words, untouched.
        parsed: See `Mark`, as are `score` and `reason`.
        score: From 0 to 1; None where lmms-eval scores no single questions, or its judge failed.
        reason: Why nothing was understood.
        reference: What the answer was compared with.
        details: Kind, options and the like.
        finish_reason: `stop` or `length`.
        image_id: Answers about one image are not independent: intervals draw whole images.
    """

    id: str
    prompt: str
    output: str
    parsed: str | None
    score: float | None
    reason: str
    reference: Any
    details: Mapping[str, Any]
    finish_reason: str
    image_id: str

    @classmethod
    def of(cls, question: TaskQuestion, output: str, finish_reason: str, mark: Mark) -> "ScoredAnswer":
        """The answer to a question, in the form in which it is read back from its file."""
        asked = asdict(question)
        del asked["image"]
        asked |= json.loads(json.dumps({name: asked[name] for name in ("reference", "details")}))
        return cls(**asked, **asdict(mark), output=output, finish_reason=finish_reason)


@dataclass(frozen=True)
class Task:
    """A test.

    Attributes:
        name: In commands, folders and tables.
        title: For people.
        source: Where the questions come from; for error messages.
        questions: All of them, in the test's order.
        score: Marks one answer.
        headline: What the mean score is called.
        kinds: Details by whose values scores are reported apart.
        max_new_tokens: Bound on an answer; decoding is greedy.

    Raises:
        ValueError: When there are no questions, or two have the same id.
    """

    name: str
    title: str
    source: str
    questions: Sequence[TaskQuestion]
    score: Callable[[TaskQuestion, str], Mark]
    headline: str = "accuracy"
    kinds: tuple[str, ...] = ("kind",)
    max_new_tokens: int = 32

    def __post_init__(self) -> None:
        if not self.questions:
            raise ValueError(f"{self.source}: there are no questions")
        repeated = [name for name, count in Counter(question.id for question in self.questions).items() if count > 1]
        if repeated:
            raise ValueError(f"{self.source}: {len(repeated)} ids stand more than once, the first is {repeated[0]!r}")
