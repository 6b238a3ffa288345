"""A load of requests and what came of it: clients that ask one question after another, waits, gaps and rates.

Knows a server as something that answers a question and notes when each token came; knows no model.
"""

import dataclasses
import io
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

QUESTION = "What is in the picture, and what else is there beside it? Question {number}."
SHORTEST, LONGEST = 32, 64  # tokens of an answer


@dataclass(frozen=True)
class Question:
    """One request.

    Attributes:
        picture: An encoded picture.
        text: The question.
        answer_tokens: Tokens of its answer.
    """

    picture: bytes
    text: str
    answer_tokens: int


@dataclass(frozen=True)
class Answered:
    """When an answer came.

    Attributes:
        asked: Moment of the question, in seconds.
        moments: Moments of the answer's tokens, or of its pieces where a server tells no tokens.
        tokens: Tokens of the answer.
    """

    asked: float
    moments: Sequence[float]
    tokens: int

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.moments[0] - self.asked

    @property
    def gaps(self) -> list[float]:
        """Seconds from each token to the next."""
        return [later - earlier for earlier, later in zip(self.moments, self.moments[1:], strict=False)]


@dataclass(frozen=True)
class Outcome:
    """A load, summed up.

    Attributes:
        tokens_per_s: All answers' tokens in the time from the first question to the last token.
        requests_per_s: Answers in the same time.
        first_p50_ms: Median time to the first token.
        first_p95_ms: 95th percentile of the time to the first token.
        gap_p50_ms: Median time between two tokens of an answer.
        gap_longest_ms: Longest time between two tokens of an answer.
        cpu_ms_per_token: Processor time of this process for each token, which other processes hardly change.
    """

    tokens_per_s: float
    requests_per_s: float
    first_p50_ms: float
    first_p95_ms: float
    gap_p50_ms: float
    gap_longest_ms: float
    cpu_ms_per_token: float

    @classmethod
    def of(cls, answers: Sequence[Answered], cpu_seconds: float) -> "Outcome":
        """Sum up."""
        seconds = max(answer.moments[-1] for answer in answers) - min(answer.asked for answer in answers)
        firsts = [1000 * answer.first for answer in answers]
        gaps = [1000 * gap for answer in answers for gap in answer.gaps]
        tokens = sum(answer.tokens for answer in answers)
        return cls(
            tokens / seconds, len(answers) / seconds, statistics.median(firsts), float(np.percentile(firsts, 95)),
            statistics.median(gaps), max(gaps), 1000 * cpu_seconds / tokens,
        )  # fmt: skip

    @staticmethod
    def median(outcomes: Sequence["Outcome"]) -> "Outcome":
        """The median of each number over repeated loads."""
        names = [field.name for field in dataclasses.fields(Outcome)]
        return Outcome(*(statistics.median(getattr(outcome, name) for outcome in outcomes) for name in names))


def questions(count: int, per_picture: int, seed: int = 0) -> list[Question]:
    """Questions about pictures of noise and of different sizes, several about each, in mixed order."""
    drawn = np.random.default_rng(seed)
    pictures = [_picture(drawn) for _ in range(-(-count // per_picture))]
    lengths = drawn.integers(SHORTEST, LONGEST + 1, count)
    made = [
        Question(pictures[number // per_picture], QUESTION.format(number=number), int(lengths[number]))
        for number in range(count)
    ]
    return [made[number] for number in drawn.permutation(count)]


def run_clients(ask: Callable[[Question], Answered], asked: Sequence[Question], clients: int) -> Outcome:
    """Let clients ask: each takes the next question as soon as its last answer is complete.

    Raises:
        RuntimeError: When a client failed.
    """
    todo, lock = list(reversed(asked)), threading.Lock()
    answers: list[Answered] = []
    failures: list[Exception] = []

    def work() -> None:
        while not failures:
            with lock:
                if not todo:
                    return
                question = todo.pop()
            try:
                answer = ask(question)
            except Exception as error:  # noqa: BLE001 - raised in the caller's thread below
                failures.append(error)
                return
            answers.append(answer)

    cpu = time.process_time()
    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"A client failed: {failures[0]}") from failures[0]
    return Outcome.of(answers, time.process_time() - cpu)


def now() -> float:
    """The clock of all moments."""
    return time.monotonic()


def _picture(drawn: np.random.Generator) -> bytes:
    height, width = drawn.integers(200, 640, 2)
    coarse = Image.fromarray(drawn.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    file = io.BytesIO()
    coarse.resize((int(width), int(height)), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()
