"""FUSION as a chat model of lmms-eval 0.7: its requests in, the engine's answers out.

    lmms-eval eval --model fusionvl --model_args pretrained=NAME_OR_PATH --tasks pope --batch_size 16

Knows lmms-eval's requests and the engine; knows no benchmark. Imported only by lmms-eval, which is not among this
package's dependencies: see docs/lmms_eval.md.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts  # type: ignore[import-not-found]
from lmms_eval.api.model import lmms  # type: ignore[import-not-found]
from lmms_eval.protocol import ChatMessages  # type: ignore[import-not-found]
from lmms_eval.utils import Collator  # type: ignore[import-not-found]
from tqdm import tqdm

from fusionvl.engine import FusionEngine
from fusionvl.engine.engine import Conversation
from fusionvl.eval.fingerprint import fingerprint
from fusionvl.eval.finished_requests import FinishedRequest, FinishedRequests
from fusionvl.eval.generation_settings import GenerationSettings
from fusionvl.processing import load_image

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Question:
    """One request, read.

    Attributes:
        task: The benchmark's name.
        doc_id: Number of the question in it.
        conversation: What the engine is asked; None when the question is to be passed over.
        key: Of all that the answer depends on.
    """

    task: str
    doc_id: int
    conversation: Conversation | None
    key: str


class FusionForLmmsEval(lmms):
    """Answers lmms-eval's generation requests with a `FusionEngine`.

    Args are `--model_args`; lmms-eval adds the last three from its own options.

    Args:
        pretrained: Hub name or folder; without it, the model shipped with the package.
        dtype: As for `FusionEngine.from_pretrained`.
        num_latents: Latent tokens of each question; None is the processor's default.
        resume: A folder that keeps every answer as it comes; a later run asks only what is missing there.
        several_images: What to do with a question that shows several images, a video or sound: `refuse` ends the run,
            `skip` gives an empty answer, and the log says how many.
        batch_size: Questions of a batch.
        device: A torch device; None is a GPU when there is one. Several processes get a GPU each.
        max_batch_size: Not used: batches have one size.

    Raises:
        ValueError: When a setting cannot be used, or the model cannot be loaded; with the reason.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str | None = None,
        dtype: str = "auto",
        num_latents: int | None = None,
        resume: str | None = None,
        several_images: Literal["refuse", "skip"] = "refuse",
        batch_size: int | str = 1,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ValueError(f"--batch_size must be a whole number of at least 1, not {batch_size!r}")
        if several_images not in ("refuse", "skip"):
            raise ValueError(f"several_images must be refuse or skip, not {several_images!r}")
        self.batch_size = int(batch_size)
        self.accelerator = Accelerator()
        self._rank = self.accelerator.process_index
        self._world_size = self.accelerator.num_processes
        if self._world_size > 1:
            device = str(self.accelerator.device)
        name = (
            None if pretrained is None else str(pretrained)
        )  # lmms-eval makes a number of a name that looks like one
        self._engine = FusionEngine.from_pretrained(name, dtype=dtype, device=device or "auto")
        self.device = self._engine.model.device
        self._num_latents = num_latents
        self._skips = several_images == "skip"
        self._finished = None if resume is None else FinishedRequests(Path(str(resume)), self._rank)
        self._model_key = [fingerprint(self._engine.model), str(self._engine.model.dtype), num_latents]

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answer requests, in their order.

        Raises:
            ValueError: When a question cannot be asked; with task, question and reason.
        """
        # Requests of one question are told apart by number, as repeated samples differ.
        seen = Counter[tuple[Any, ...]]()
        numbered = []
        for request in requests:
            same = request.args[3:6]
            # Processes with fewer questions repeat their last one; that answer is known by then.
            seen[same] += not request.metadata.get("__padding_only__")
            numbered.append((request, seen[same]))
        # In the task's order, not by length: questions about one image follow each other and share its features, and
        # the image's tokens are most of a prompt anyway.
        collator = Collator(
            numbered, lambda item: (item[0].args[4], item[0].args[3]), lambda item: item[0].args[2], grouping=True
        )
        skipped = Counter[str]()
        results: list[GenerationResult] = []
        with tqdm(total=len(requests), unit="question", disable=self._rank != 0) as progress:
            for chunk in collator.get_batched(n=self.batch_size):
                questions = [self._read(request, number) for request, number in chunk]
                skipped.update(question.task for question in questions if question.conversation is None)
                results += self._answer(questions, chunk[0][0].args[2])
                progress.update(len(chunk))
        for task, count in skipped.items():
            logger.warning(
                "%s: %d questions show several images, a video or sound; their answers are empty", task, count
            )
        return collator.get_original(results)

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Refuse: each round of these tasks shows another image or video.

        Raises:
            NotImplementedError: Always, with the task's name.
        """
        raise NotImplementedError(
            f"{requests[0].task_name} asks in several rounds, each with images of its own: FUSION takes one image"
        )

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Refuse: FUSION's answers are generated.

        Raises:
            NotImplementedError: Always, with the task's name.
        """
        raise NotImplementedError(
            f"{requests[0].task_name} asks for the likelihood of given answers (output_type multiple_choice or "
            "loglikelihood); fusionvl generates answers: choose a task with output_type generate_until"
        )

    def clean(self) -> None:
        """Free the model's memory when all is answered: a judge may need it."""
        del self._engine
        super().clean()

    def _read(self, request: Instance, number: int) -> _Question:
        _, doc_to_messages, generation, doc_id, task, split = request.args
        messages = ChatMessages(messages=doc_to_messages(self.task_dict[task][split][doc_id])).to_hf_messages()
        problem = _problem(messages)
        if problem and not self._skips:
            raise ValueError(
                f"Task {task}, question {doc_id} {problem}: FUSION takes one image. "
                "With --model_args several_images=skip such questions get empty answers"
            )
        asked = [self._model_key, task, split, doc_id, number, generation, problem]
        key = hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=16)
        if not problem:
            try:
                _load_images(messages)
            except ValueError as error:
                raise ValueError(f"Task {task}, question {doc_id}: {error}") from error
            _hash_messages(key, messages)
        return _Question(task, doc_id, None if problem else messages, key.hexdigest())

    def _answer(self, questions: Sequence[_Question], generation: Mapping[str, Any]) -> list[GenerationResult]:
        """Answer a batch: what is finished from the file, the rest by the engine."""
        found = {question.key: self._earlier(question) for question in questions}
        missing = {question.key: question for question in questions if found[question.key] is None}
        if missing:
            new = self._ask(list(missing.values()), GenerationSettings.read(generation))
            if self._finished is not None:
                self._finished.append(new)
            found |= {request.key: request for request in new}
        return [_result(found[question.key]) for question in questions]

    def _earlier(self, question: _Question) -> FinishedRequest | None:
        if question.conversation is None:
            return FinishedRequest(question.key, question.task, question.doc_id, "", 0)
        return None if self._finished is None else self._finished.get(question.key)

    def _ask(self, questions: Sequence[_Question], settings: GenerationSettings) -> list[FinishedRequest]:
        try:
            answers = self._engine.answer(
                [question.conversation for question in questions if question.conversation is not None],
                num_latents=self._num_latents,
                max_new_tokens=settings.max_new_tokens,
                **settings.for_generate(self._engine.processor.tokenizer),
            )
        except ValueError as error:
            asked = ", ".join(f"{question.task} {question.doc_id}" for question in questions)
            raise ValueError(f"One of the questions {asked}: {error}") from error
        return [
            FinishedRequest(
                question.key, question.task, question.doc_id, settings.cut(answer.text), answer.answer_tokens
            )
            for question, answer in zip(questions, answers, strict=True)
        ]


def _result(request: FinishedRequest | None) -> GenerationResult:
    assert request is not None
    return GenerationResult(request.text, TokenCounts(output_tokens=request.output_tokens))


def _problem(messages: Conversation) -> str | None:
    """Why FUSION cannot be asked this, as the rest of a sentence; None when it can."""
    kinds = Counter(part["type"] for message in messages for part in message["content"])
    for kind in ("video", "audio"):
        if kinds[kind]:
            return f"shows {kind}"
    return f"shows {kinds['image']} images" if kinds["image"] > 1 else None


def _load_images(messages: Conversation) -> None:
    """Replace paths and images of any kind by RGB images."""
    for message in messages:
        for part in message["content"]:
            if part["type"] == "image":
                part["image"] = load_image(part["image"])


def _hash_messages(digest: Any, messages: Conversation) -> None:
    """Words and pixels; the images are loaded."""
    for message in messages:
        digest.update(message["role"].encode())
        for part in message["content"]:
            if part["type"] == "text":
                digest.update(part["text"].encode())
            else:
                digest.update(str(part["image"].size).encode())
                digest.update(np.asarray(part["image"]).tobytes())
