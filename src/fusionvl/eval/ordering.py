"""The order in which questions are asked: those of one image near each other, those of one length in a batch.

Knows questions and no model.
"""

from collections.abc import Iterable, Iterator, Sequence

from fusionvl.eval.task import TaskQuestion

_POOL_BATCHES = 8


def in_batches(questions: Sequence[TaskQuestion], batch_size: int) -> Iterator[list[TaskQuestion]]:
    """Every question once, in full batches but for the last.

    Whole images fill a pool of a few batches, which is asked longest prompt first: prompts of a batch are of similar
    length, and the questions of an image are never further apart than the pool, so that its features are still known.
    Length is counted in characters, which needs no tokenizer.

    Args:
        questions: In the task's order.
        batch_size: Questions of a batch.
    """
    pool: list[TaskQuestion] = []
    for group in by_image(questions):
        pool += group
        if len(pool) >= _POOL_BATCHES * batch_size:
            pool.sort(key=lambda question: -len(question.prompt))
            full = len(pool) // batch_size * batch_size
            yield from _cut(pool[:full], batch_size)
            pool = pool[full:]
    pool.sort(key=lambda question: -len(question.prompt))
    yield from _cut(pool, batch_size)


def by_image(questions: Iterable[TaskQuestion]) -> list[list[TaskQuestion]]:
    """Questions grouped by image, images in the order of their first question."""
    groups: dict[str, list[TaskQuestion]] = {}
    for question in questions:
        groups.setdefault(question.image_id, []).append(question)
    return list(groups.values())


def share_of(questions: Sequence[TaskQuestion], shard: tuple[int, int]) -> list[TaskQuestion]:
    """The questions of every N-th image, from the I-th on: what the I-th of N processes asks."""
    index, count = shard
    return [question for group in by_image(questions)[index::count] for question in group]


def _cut(questions: Sequence[TaskQuestion], batch_size: int) -> Iterator[list[TaskQuestion]]:
    for start in range(0, len(questions), batch_size):
        yield list(questions[start : start + batch_size])
