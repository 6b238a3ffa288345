"""FUSION as a chat model of lmms-eval 0.7: its requests in, the engine's answers out.

    lmms-eval eval --model fusionvl --model_args pretrained=NAME_OR_PATH --tasks pope --batch_size 16

Knows lmms-eval's requests and the engine; knows no benchmark. Imported only by lmms-eval, which is not among this
package's dependencies: see docs/lmms_eval.md.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
from fusionvl.engine.sources import shipped_model
from fusionvl.eval.finished_answers import FinishedAnswer, finished_file, read_finished
from fusionvl.eval.generation_settings import cut, engine_settings, stop_texts
from fusionvl.eval.model_fingerprint import model_fingerprint
from fusionvl.processing import load_image
from fusionvl.run_folder import RowFile, fingerprint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _ReadRequest:
    """One request, read.

    Attributes:
        task: The benchmark's name.
        doc_id: Number of the question in it.
        conversation: What the engine is asked; None when the question is to be passed over.
        image_id: Equal for equal images; empty without one.
        key: Of all that the answer depends on.
    """

    task: str
    doc_id: int
    conversation: Conversation | None
    image_id: str
    key: str


class FusionForLmmsEval(lmms):
    """Answers lmms-eval's generation requests with a `FusionEngine`.

    Args are `--model_args`; lmms-eval adds the last three from its own options.

    Args:
        pretrained: Hub name or folder; without it, the model shipped with the package.
        dtype: As for `FusionEngine.from_pretrained`.
        num_latents: Latent tokens of each question; None is the processor's default.
        weights: The model's fingerprint, where it is known already.
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
        weights: str | None = None,
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
        # lmms-eval makes a number of what looks like one.
        name = str(shipped_model() if pretrained is None else pretrained)
        self._engine = FusionEngine.from_pretrained(name, dtype=dtype, device=device or "auto")
        self.device = self._engine.model.device
        self._num_latents = num_latents
        self._skips = several_images == "skip"
        folder = None if resume is None else Path(str(resume))
        self._file = None if folder is None else RowFile(finished_file(folder, self._rank))
        self._finished = {} if folder is None else {answer.key: answer for answer in read_finished(folder)}
        self._model_key = [str(weights or model_fingerprint(name)), str(self._engine.model.dtype), num_latents]

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
        """Free the model's memory when all is answered, as a judge may need it, and leave the file of answers."""
        del self._engine
        if self._file is not None:
            self._file.close()
        super().clean()

    def _read(self, request: Instance, number: int) -> _ReadRequest:
        _, doc_to_messages, generation, doc_id, task, split = request.args
        messages = ChatMessages(messages=doc_to_messages(self.task_dict[task][split][doc_id])).to_hf_messages()
        problem = _problem(messages)
        if problem and not self._skips:
            raise ValueError(
                f"Task {task}, question {doc_id} {problem}: FUSION takes one image. "
                "With --model_args several_images=skip such questions get empty answers"
            )
        try:
            image_id = "" if problem else _load_image(messages)
        except ValueError as error:
            raise ValueError(f"Task {task}, question {doc_id}: {error}") from error
        words = [[part.get("text", image_id) for part in message["content"]] for message in messages]
        key = fingerprint(self._model_key, [task, split, doc_id, number, generation, words])
        return _ReadRequest(task, doc_id, None if problem else messages, image_id, key)

    def _answer(self, requests: Sequence[_ReadRequest], generation: Mapping[str, Any]) -> list[GenerationResult]:
        """Answer a batch: what is finished from the file, the rest by the engine."""
        found = {request.key: answer for request in requests if (answer := self._known(request)) is not None}
        missing = {request.key: request for request in requests if request.key not in found}
        if missing:
            new = self._ask(list(missing.values()), generation)
            found |= {answer.key: answer for answer in new}
            if self._file is not None:
                self._file.append(*map(asdict, new))
                self._finished |= {answer.key: answer for answer in new}
        answers = [found[request.key] for request in requests]
        return [GenerationResult(answer.output, TokenCounts(output_tokens=answer.output_tokens)) for answer in answers]

    def _known(self, request: _ReadRequest) -> FinishedAnswer | None:
        if request.conversation is None:
            return FinishedAnswer(request.key, request.task, request.doc_id, "", "", 0, "stop")
        return self._finished.get(request.key)

    def _ask(self, requests: Sequence[_ReadRequest], generation: Mapping[str, Any]) -> list[FinishedAnswer]:
        stops = stop_texts(generation)
        # The engine stops at a stop text but keeps it.
        stopping = {"stop_strings": stops, "tokenizer": self._engine.processor.tokenizer} if stops else {}
        try:
            answers = self._engine.answer(
                [request.conversation for request in requests if request.conversation is not None],
                num_latents=self._num_latents,
                **engine_settings(generation),
                **stopping,
            )
        except ValueError as error:
            asked = ", ".join(f"{request.task} {request.doc_id}" for request in requests)
            raise ValueError(f"One of the questions {asked}: {error}") from error
        return [
            FinishedAnswer(
                key=request.key,
                task=request.task,
                doc_id=request.doc_id,
                image_id=request.image_id,
                output=cut(answer.text, stops),
                output_tokens=answer.answer_tokens,
                finish_reason="stop" if any(stop in answer.text for stop in stops) else answer.finish_reason,
            )
            for request, answer in zip(requests, answers, strict=True)
        ]


def _problem(messages: Conversation) -> str | None:
    """Why FUSION cannot be asked this, as the rest of a sentence; None when it can."""
    kinds = Counter(part["type"] for message in messages for part in message["content"])
    for kind in ("video", "audio"):
        if kinds[kind]:
            return f"shows {kind}"
    return f"shows {kinds['image']} images" if kinds["image"] > 1 else None


def _load_image(messages: Conversation) -> str:
    """Replace a path or an image of any kind by an RGB image; its pixels' name, empty without one."""
    for message in messages:
        for part in message["content"]:
            if part["type"] == "image":
                image = part["image"] = load_image(part["image"])
                digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8, salt=b"%d" % image.width)
                return digest.hexdigest()
    return ""
