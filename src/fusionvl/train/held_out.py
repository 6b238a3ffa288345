"""Questions asked while training, about data that is not trained on: how many answers are right, and some of them.

Knows the engine and the data room. The answers are for watching a run; scores are the business of `fusionvl.eval`.
"""

import logging
from dataclasses import dataclass
from typing import Any

import torch

from fusionvl.data.mixture import Mixture
from fusionvl.data.picture_split import split_by_picture
from fusionvl.data.sample import Sample
from fusionvl.engine import FusionEngine
from fusionvl.engine.engine import conversation
from fusionvl.model import FusionForConditionalGeneration
from fusionvl.processing import FusionProcessor, load_image
from fusionvl.train.config import HeldOut
from fusionvl.train.dataset import open_data
from fusionvl.train.metrics import StageLog

logger = logging.getLogger(__name__)
_BATCH = 64


def divide_data(held_out: HeldOut | None, mixtures: list[Mixture], seed: int) -> tuple[list[Mixture], list[Sample]]:
    """What each stage trains on, and the samples whose first questions are asked.

    Args:
        held_out: The recipe's block; without one nothing is asked.
        mixtures: Of the stages.
        seed: The run's.

    Raises:
        ValueError: When held-out data cannot be opened or divided off, or one of the samples or its image cannot be
            read.
    """
    if held_out is None:
        return mixtures, []
    if held_out.share is None:
        assert held_out.data is not None  # one of the two is given
        return mixtures, _samples(held_out, [open_data(held_out.data, seed)])
    divided = [split_by_picture(mixture, held_out.share) for mixture in mixtures]
    return [kept for kept, _ in divided], _samples(held_out, [asked for _, asked in divided])


def _samples(held_out: HeldOut, mixtures: list[Mixture]) -> list[Sample]:
    """Each once, also where several stages have it."""
    found = [
        mixture.read(mixture.order.at(position))
        for mixture in mixtures
        for position in range(min(held_out.questions, len(mixture)))
    ]
    samples = list(dict.fromkeys(found))[: held_out.questions]
    for sample in samples:
        if sample.image is not None:
            load_image(sample.image)
    return samples


@dataclass(frozen=True)
class HeldOutQuestions:
    """What is asked of a model in training.

    Attributes:
        samples: Whose first questions are asked.
        held_out: How many answers are shown, how long they may be.
        processor: The model's.
    """

    samples: list[Sample]
    held_out: HeldOut
    processor: FusionProcessor

    def ask(self, model: FusionForConditionalGeneration, step: int, log: StageLog) -> None:
        """Ask, and log how many answers are exactly right; every process must call, for all compute together."""
        answers = self._answers(model)
        right = [answer == sample.turns[0].answer for sample, answer in zip(self.samples, answers, strict=True)]
        shown = [_shown(sample, answer) for sample, answer in zip(self.samples, answers, strict=True)]
        accuracy = _share(right)
        log.add(step, {"held_out_accuracy": accuracy, **self._by_source(right)}, shown[: self.held_out.shown])
        logger.info(
            "Step %d: %.2f %% of %d held-out questions right; %r -> %r, expected %r",
            step,
            100 * accuracy,
            len(right),
            shown[0]["question"],
            shown[0]["answer"],
            shown[0]["expected"],
        )

    def _by_source(self, right: list[bool]) -> dict[str, float]:
        """The share that is right of each data set, where there are several."""
        sources = sorted({sample.source for sample in self.samples})
        if len(sources) == 1:
            return {}
        own = {
            source: [each for each, sample in zip(right, self.samples, strict=True) if sample.source == source]
            for source in sources
        }
        return {f"held_out_accuracy/{source}": _share(each) for source, each in own.items()}

    def _answers(self, model: FusionForConditionalGeneration) -> list[str]:
        engine = FusionEngine(model.eval(), self.processor, cache_bytes=0)
        answers = []
        with torch.compiler.set_stance("force_eager"):  # lengths of answers would be compiled one by one
            for start in range(0, len(self.samples), _BATCH):
                batch = self.samples[start : start + _BATCH]
                asked = [conversation(sample.image, sample.turns[0].question) for sample in batch]
                answers += engine.answer(asked, max_new_tokens=self.held_out.max_new_tokens)
        model.train()
        return [answer.text for answer in answers]


def _share(right: list[bool]) -> float:
    return sum(right) / len(right)


def _shown(sample: Sample, answer: str) -> dict[str, Any]:
    turn = sample.turns[0]
    return {"id": sample.id, "question": turn.question, "expected": turn.answer, "answer": answer}
