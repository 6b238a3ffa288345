"""Questions asked while training, about data that is not trained on: how many answers are right, and some of them.

Knows the engine and the data room. The answers are for watching a run; scores are the business of `fusionvl.eval`.
"""

import logging
from pathlib import Path
from typing import Any, TypeAlias

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fusionvl.data.sample import Sample
from fusionvl.engine import FusionEngine
from fusionvl.engine.engine import conversation
from fusionvl.model import FusionForConditionalGeneration
from fusionvl.processing import FusionProcessor, load_image
from fusionvl.train.config import HeldOut
from fusionvl.train.dataset import open_data
from fusionvl.train.metrics import append_line

logger = logging.getLogger(__name__)
_BATCH = 64
Asked: TypeAlias = list[tuple[Sample, str]]


def held_out_samples(held_out: HeldOut, seed: int) -> list[Sample]:
    """The samples whose first questions are asked, each row of the data at most once.

    Raises:
        ValueError: When the data cannot be opened, or one of the samples or its image cannot be read.
    """
    mixture = open_data(held_out.data, seed)
    count = min(held_out.questions, len(mixture))
    samples = [mixture.read(mixture.order.at(position)) for position in range(count)]
    for sample in samples:
        if sample.image is not None:
            load_image(sample.image)
    return samples


class AskHeldOut(TrainerCallback):
    """Asks every so many steps and after the last.

    Args:
        samples: Whose first questions are asked.
        held_out: How many answers are shown, how long they may be.
        processor: The model's.
        every: Steps between measurements.
        output: The run's folder, for `metrics.jsonl` and `samples.jsonl`.
        stage: Its name.
    """

    def __init__(
        self,
        samples: list[Sample],
        held_out: HeldOut,
        processor: FusionProcessor,
        every: int,
        output: Path,
        stage: str,
    ) -> None:
        self.samples = samples
        self.held_out = held_out
        self.processor = processor
        self.every = every
        self.output = output
        self.stage = stage

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask when it is time."""
        if state.global_step % self.every and state.global_step != state.max_steps:
            return
        answers = self._answers(kwargs["model"])  # in every process: a sharded model computes in all or none
        if not state.is_world_process_zero:
            return
        asked = list(zip(self.samples, answers, strict=True))
        where = {"stage": self.stage, "step": state.global_step}
        accuracy = _accuracy(asked)
        append_line(self.output / "metrics.jsonl", {**where, "held_out_accuracy": accuracy, **_by_source(asked)})
        for sample, answer in asked[: self.held_out.shown]:
            turn = sample.turns[0]
            append_line(
                self.output / "samples.jsonl",
                {**where, "id": sample.id, "question": turn.question, "expected": turn.answer, "answer": answer},
            )
        sample, answer = asked[0]
        logger.info(
            "Step %d: %.2f %% of %d held-out questions right; %r -> %r, expected %r",
            state.global_step,
            100 * accuracy,
            len(asked),
            sample.turns[0].question,
            answer,
            sample.turns[0].answer,
        )

    def _answers(self, model: FusionForConditionalGeneration) -> list[str]:
        was_training = model.training
        engine = FusionEngine(model.eval(), self.processor, cache_bytes=0)
        answers = []
        for start in range(0, len(self.samples), _BATCH):
            batch = self.samples[start : start + _BATCH]
            asked = [conversation(sample.image, sample.turns[0].question) for sample in batch]
            answers += engine.answer(asked, max_new_tokens=self.held_out.max_new_tokens)
        model.train(was_training)
        return [answer.text for answer in answers]


def _accuracy(asked: Asked) -> float:
    """The share of answers that are exactly right."""
    return sum(answer == sample.turns[0].answer for sample, answer in asked) / len(asked)


def _by_source(asked: Asked) -> dict[str, float]:
    """The same for each data set, where there are several."""
    sources = sorted({sample.source for sample, _ in asked})
    if len(sources) == 1:
        return {}
    own = {source: [each for each in asked if each[0].source == source] for source in sources}
    return {f"held_out_accuracy/{source}": _accuracy(each) for source, each in own.items()}
