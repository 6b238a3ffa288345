"""Asks the questions of a test of our own, writes every answer down with its score, adds up at the end.

Killed at any moment, it loses at most the batch in flight and goes on from there. Errors of the model, memory among
them, end the run. Knows tests and answerers; knows no test in particular and no command line.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from tqdm import tqdm

from fusionvl.engine.engine import Answer
from fusionvl.eval.ordering import in_batches, share_of
from fusionvl.eval.score_store import PACKAGES, SAMPLES, Results, read_answers, scores_of, write_scores
from fusionvl.eval.task import ScoredAnswer, Task, TaskQuestion
from fusionvl.run_folder import RowFile, claim

_COMPARED = ("prompt", "reference", "details", "image_id")


class Answerer(Protocol):
    """What is scored: anything that answers questions about images.

    Attributes:
        name: For people.
    """

    name: str

    def settings(self) -> dict[str, Any]:
        """All that its answers depend on, to tell whether two runs may be one; JSON."""

    def answer(self, questions: Sequence[TaskQuestion], max_new_tokens: int) -> list[Answer]:
        """Answer a batch, greedily.

        Raises:
            ValueError: When a question or its image cannot be used.
        """

    def image_reuse(self) -> tuple[int, int]:
        """How often the features of an image were known already, and how often they were computed."""


def run_task(
    task: Task,
    answerer: Answerer,
    folder: Path,
    *,
    batch_size: int = 16,
    limit: int | None = None,
    shard: tuple[int, int] = (0, 1),
    show_progress: bool = True,
) -> Results | None:
    """Score a model on a test, or go on where an earlier call stopped.

    Args:
        task: The test.
        answerer: What is scored.
        folder: Of this test's scores with this model; the same call goes on in it.
        batch_size: Questions of a batch.
        limit: Ask only the first so many questions. A later call may have a higher one.
        shard: (I, N): ask the questions of every N-th image only, from the I-th on.
        show_progress: Whether to draw a bar.

    Returns:
        The results; None when other shards are not finished.

    Raises:
        ValueError: When the folder holds other scores, or a question cannot be asked.
        CannotWriteError: When the disk is full or the place cannot be written.
    """
    asked = task.questions[:limit]
    mine = share_of(asked, shard)
    claim_folder = partial(_claim, task, answerer, folder, batch_size)
    claim_folder()
    with RowFile(folder / _file_name(shard)) as file:
        answers = read_answers(file.path)
        _check_same_questions(answers, mine, file.path)
        missing = [question for question in mine if question.id not in answers]
        bar = tqdm(desc=task.name, total=len(mine), initial=len(answers), unit="question", disable=not show_progress)
        for batch in in_batches(missing, batch_size):
            new = _ask(task, answerer, batch)
            claim_folder()  # nobody else's, if it was empty until now
            file.append(*map(asdict, new))
            answers |= {answer.id: answer for answer in new}
            bar.set_postfix_str(f"mean score {100 * _mean(answers.values()):.1f} %", refresh=False)
            bar.update(len(batch))
        bar.close()
    every = _all_answers(folder, asked, shard[1])
    if every is None:
        return None
    not_asked = len(task.questions) - len(asked)
    return write_scores(folder, every, summarise(task, every), task=task.name, title=task.title, not_asked=not_asked)


def summarise(task: Task, answers: Sequence[ScoredAnswer]) -> dict[str, tuple[float, list[ScoredAnswer]]]:
    """The mean score of all answers, and of those of each kind."""
    groups = {task.headline: list(answers)}
    for kind in task.kinds:
        for value in sorted({str(answer.details[kind]) for answer in answers}):
            own = [answer for answer in answers if str(answer.details[kind]) == value]
            groups[f"{task.headline}/{value}"] = own
    return {name: (100 * _mean(own), own) for name, own in groups.items()}


def _claim(task: Task, answerer: Answerer, folder: Path, batch_size: int) -> None:
    claim(
        folder,
        {"task": task.name, "max_new_tokens": task.max_new_tokens, **answerer.settings()},
        told={"model": answerer.name, "source": task.source, "batch_size": batch_size},
        packages=PACKAGES,
        is_begun=any(path.stat().st_size for path in folder.glob("samples*.jsonl")),
    )


def _ask(task: Task, answerer: Answerer, batch: Sequence[TaskQuestion]) -> list[ScoredAnswer]:
    try:
        answers = answerer.answer(batch, task.max_new_tokens)
    except ValueError as error:
        among = ", ".join(question.id for question in batch[:8]) + (", ..." if len(batch) > 8 else "")
        raise ValueError(f"{task.name}, one of the questions {among}: {error}") from error
    return [
        ScoredAnswer.of(question, answer.text, answer.finish_reason, task.score(question, answer.text))
        for question, answer in zip(batch, answers, strict=True)
    ]


def _file_name(shard: tuple[int, int]) -> str:
    index, count = shard
    return SAMPLES if count == 1 else f"samples-{index}-of-{count}.jsonl"


def _check_same_questions(answers: dict[str, ScoredAnswer], questions: Sequence[TaskQuestion], path: Path) -> None:
    known = {question.id: question for question in questions}
    foreign = answers.keys() - known.keys()
    if foreign:
        raise ValueError(
            f"{path} holds {len(foreign)} answers to questions that are not asked now, for instance {min(foreign)}: "
            "choose another --output, or a --limit not lower than before"
        )
    for name, answer in answers.items():
        now = json.loads(json.dumps([getattr(known[name], field) for field in _COMPARED]))
        if now != [getattr(answer, field) for field in _COMPARED]:
            raise ValueError(f"{path}: {name} was another question then: choose another --output")


def _all_answers(folder: Path, questions: Sequence[TaskQuestion], shards: int) -> list[ScoredAnswer] | None:
    """The answers of all shards in the test's order; None while some are missing."""
    answers: dict[str, ScoredAnswer] = {}
    for index in range(shards):
        answers |= read_answers(folder / _file_name((index, shards)))
    if any(question.id not in answers for question in questions):
        return None
    return [answers[question.id] for question in questions]


def _mean(answers: Iterable[ScoredAnswer]) -> float:
    return fmean(scores_of(answers))
