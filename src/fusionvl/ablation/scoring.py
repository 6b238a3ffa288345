"""Asks a trained model questions about data it has not seen, each alone, and counts exact answers and tokens.

Knows the engine and samples; knows no training.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fusionvl.ablation.recipe import Questions
from fusionvl.data.sample import Sample
from fusionvl.engine import FusionEngine
from fusionvl.engine.engine import conversation
from fusionvl.processing import load_image
from fusionvl.train.dataset import open_data


@dataclass(frozen=True)
class PictureQuestion:
    """One question about one picture.

    Attributes:
        sample: The sample it comes from, for picture and kind.
        text: As asked.
        answer: The only right one.
    """

    sample: Sample
    text: str
    answer: str


@dataclass(frozen=True)
class Score:
    """What came of all questions.

    Attributes:
        correct_by_kind: For each kind, (correct, asked).
        tokens: Mean tokens of a prompt, image and latent tokens among them.
        seconds: Mean seconds of an answer, its picture encoded anew.
    """

    correct_by_kind: dict[str, tuple[int, int]]
    tokens: float
    seconds: float


def open_questions(questions: Questions) -> list[PictureQuestion]:
    """Every turn of the samples as a question of its own.

    Raises:
        ValueError: When the data cannot be opened, or a sample or its picture cannot be read.
    """
    mixture = open_data(questions.data, seed=0)
    count = len(mixture) if questions.limit is None else min(questions.limit, len(mixture))
    samples = [mixture.read(mixture.order.at(position)) for position in range(count)]
    for sample in samples:
        if sample.image is not None:
            load_image(sample.image)
    return [PictureQuestion(sample, turn.question, turn.answer) for sample in samples for turn in sample.turns]


def score(engine: FusionEngine, asked: Sequence[PictureQuestion], questions: Questions) -> Score:
    """Ask everything in batches; nothing is remembered from one batch to the next if the engine's cache holds none."""
    correct, total = Counter[str](), Counter[str]()
    tokens, began = 0, clock()
    for start in range(0, len(asked), questions.batch_size):
        batch = asked[start : start + questions.batch_size]
        conversations = [conversation(question.sample.image, question.text) for question in batch]
        answers = engine.answer(conversations, max_new_tokens=questions.max_new_tokens)
        for question, answer in zip(batch, answers, strict=True):
            total[question.sample.source] += 1
            correct[question.sample.source] += answer.text == question.answer
            tokens += answer.prompt_tokens
    seconds = (clock() - began) / len(asked)
    return Score({kind: (correct[kind], total[kind]) for kind in sorted(total)}, tokens / len(asked), seconds)


def clock() -> float:
    """Seconds this process has worked; on a CPU those that other programs took do not count."""
    return time.monotonic() if torch.cuda.is_available() else time.process_time()
