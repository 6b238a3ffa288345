"""A test and a model that are a few lines long."""

from dataclasses import replace

from fusionvl.engine.engine import Answer
from fusionvl.eval.own_run import run_task
from fusionvl.eval.task import Mark, Task, TaskQuestion


def questions(images=10, per_image=4):
    """Whether numbers are even; images are told apart by name only, prompts differ in length."""
    return [
        TaskQuestion(
            id=f"{image}-{number}",
            prompt=f"Is {number}{'0' * (7 * image * number % 5)} even? " + "Say yes or no. " * (number % 3),
            image=None,
            image_id=f"picture {image}",
            reference="no" if number % 2 else "yes",
            details={"kind": "odd" if number % 2 else "even", "tags": ("a", "b")},
        )
        for image in range(images)
        for number in range(per_image)
    ]


def score(question, answer):
    if answer not in ("yes", "no"):
        return Mark(None, 0.0, "neither yes nor no")
    return Mark(answer, float(answer == question.reference))


TASK = Task(name="even", title="Even numbers", source="made up here", questions=questions(), score=score)


class FakeAnswerer:
    """Answers "yes", notes what it is asked, and may break."""

    name = "fake"

    def __init__(self, *, answer=lambda question: "yes", breaks_after=None, error=RuntimeError, weights="w"):
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
        return [Answer(self._answer(question), "stop", 3, 1) for question in batch]

    def image_reuse(self):
        return 0, 0


def run(task, answerer, folder, **options):
    return run_task(task, answerer, folder, show_progress=False, **options)


def scored(folder, *, answer=lambda question: "yes", weights="w", limit=None, **changes):
    """A folder of scores."""
    run(replace(TASK, **changes), FakeAnswerer(answer=answer, weights=weights), folder, limit=limit)
    return folder


def lines(folder, name="samples.jsonl"):
    return (folder / name).read_text().splitlines()
