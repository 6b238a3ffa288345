"""A benchmark and a model that are a few lines long."""

from dataclasses import replace
from pathlib import Path

from fusionvl.eval.answerer import Reply
from fusionvl.eval.task import Question, Task, Verdict


def questions(images=10, per_image=4):
    """Whether numbers are even; images are told apart by name only, prompts differ in length."""
    return [
        Question(
            id=f"{image}-{number}",
            prompt=f"Is {number}{'0' * (7 * image * number % 5)} even? " + "Say yes or no. " * (number % 3),
            image=None,
            image_id=f"picture {image}",
            reference="no" if number % 2 else "yes",
            details={"number": number, "tags": ("a", "b")},
        )
        for image in range(images)
        for number in range(per_image)
    ]


def score(question, answer, judge):
    if answer not in ("yes", "no"):
        return Verdict(None, 0.0, "neither yes nor no")
    return Verdict(answer, float(answer == question.reference))


def score_by_judge(question, answer, judge):
    words = judge(f"Is {answer!r} right for {question.id}?")
    return Verdict(words, float(words == "right"))


def summarise(samples):
    accuracy = 100 * sum(sample.score for sample in samples) / len(samples)
    return {"accuracy": accuracy, "half": accuracy / 2}


TASK = Task(
    name="even",
    title="Even numbers",
    source="made up here",
    load=lambda folder: questions(),
    score=score,
    summarise=summarise,
    headline="accuracy",
)
JUDGED = replace(
    TASK, name="judged", score=score_by_judge, needs_judge=True, judge_prompt_version="3", load=lambda _: questions(3)
)


class FakeAnswerer:
    """Answers "yes", notes what it is asked, and may break."""

    def __init__(self, *, answer=lambda question: "yes", breaks_after=None, error=RuntimeError, weights="w"):
        self.name = "fake"
        self.batches = []
        self._answer = answer
        self._breaks_after = breaks_after
        self._error = error
        self._weights = weights

    @property
    def asked(self):
        return [question.id for batch in self.batches for question in batch]

    def settings(self):
        return {"weights": self._weights}

    def answer(self, batch, max_new_tokens):
        if self._breaks_after is not None and len(self.asked) >= self._breaks_after:
            raise self._error("CUDA out of memory")
        self.batches.append(list(batch))
        return [Reply(self._answer(question), "stop") for question in batch]

    def image_reuse(self):
        return 0, 0


def lines(folder: Path, name="samples.jsonl"):
    return (folder / name).read_text().splitlines()
