"""A language model that transformers runs in worker processes, one per device; one that sees pictures, or not.

However many clients of a model are open in a process, it is loaded once per device. Each request draws its own random
numbers, so an answer does not depend on what shares its batch (but for the rounding of batched arithmetic; a batch of
one is exact). Knows no prompts. transformers and torch are imported in the workers only.
"""

import base64
import io
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from PIL import Image

from fusionvl.data.extras import locate
from fusionvl.synth.json_constraint import JsonConstraint
from fusionvl.synth.text_client import LocalModel, Message, RequestError, TextReply, TextRequest
from fusionvl.synth.workers import WorkError, Workers


class Weights(NamedTuple):
    """What is loaded: a model, a GGUF file in it if any, and what it computes in."""

    model: str
    gguf_file: str | None
    dtype: str


class Writing(NamedTuple):
    """How an answer is written: see `LocalModel`."""

    temperature: float
    max_tokens: int
    json_schema: bool


class WritingTask(NamedTuple):
    """What a worker is asked for."""

    request: TextRequest
    writing: Writing


_Key = tuple[Weights, tuple[str, ...], int]
_WORKERS: dict[_Key, Workers[WritingTask, TextReply]] = {}
_CLIENTS: Counter[_Key] = Counter()


class LocalClient:
    """A language model in worker processes.

    Args:
        settings: Which model, where and how.
    """

    def __init__(self, settings: LocalModel) -> None:
        self._writing = Writing(settings.temperature, settings.max_tokens, settings.json_schema)
        weights = Weights(settings.model, settings.gguf_file, settings.dtype)
        self._key: _Key = (weights, tuple(settings.devices), settings.batch_size)
        if self._key not in _WORKERS:
            _WORKERS[self._key] = Workers(partial(load, weights), settings.devices, settings.batch_size)
        self._workers = _WORKERS[self._key]
        _CLIENTS[self._key] += 1

    async def complete(self, request: TextRequest) -> TextReply:
        """Answer a request; see `TextClient`."""
        try:
            return await self._workers(WritingTask(request, self._writing))
        except WorkError as error:
            raise RequestError(str(error)) from error

    def close(self) -> None:
        """End the workers, unless another client uses them."""
        _CLIENTS[self._key] -= 1
        if not _CLIENTS[self._key]:
            del _CLIENTS[self._key], _WORKERS[self._key]
            self._workers.close()


def load(weights: Weights, device: str) -> Callable[[Sequence[WritingTask]], list[TextReply]]:
    """Load a model onto a device; what is returned answers batches of requests.

    Args:
        weights: Which.
        device: `cpu`, `cuda:0`, ...

    Raises:
        ValueError: When the model is not found, cannot be loaded, or has no chat template.
    """
    import transformers

    import fusionvl.auto  # noqa: F401 - so that it may be a FUSION

    source = locate(weights.model)
    choices = {} if weights.gguf_file is None else {"gguf_file": weights.gguf_file}
    try:
        config = transformers.AutoConfig.from_pretrained(source, **choices)
        sees = type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        if sees:
            processor = transformers.AutoProcessor.from_pretrained(source)
            model: Any = transformers.AutoModelForImageTextToText.from_pretrained(source, dtype=weights.dtype)
        else:
            processor = transformers.AutoTokenizer.from_pretrained(source, padding_side="left", **choices)
            model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=weights.dtype, **choices)
    except (OSError, ValueError) as error:
        raise ValueError(f"{weights.model} cannot be loaded as a language model: {error}") from error
    if not processor.chat_template:
        raise ValueError(f"{weights.model} has no chat template: take a model that is tuned to follow instructions")
    return LoadedModel(weights, processor, model.to(device).eval(), sees)


class LoadedModel:
    """A model on its device.

    Args:
        weights: Which.
        processor: Its processor or, when it sees nothing, its tokenizer.
        model: The model itself.
        sees: Whether it takes pictures.
    """

    def __init__(self, weights: Weights, processor: Any, model: Any, sees: bool) -> None:
        self._name = weights.model if weights.gguf_file is None else f"{weights.model}/{weights.gguf_file}"
        self._processor = processor
        self._tokenizer = processor.tokenizer if sees else processor
        self._model = model
        self._sees = sees
        self._constraint: JsonConstraint | None = None
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        ends = model.generation_config.eos_token_id or self._tokenizer.eos_token_id
        self._ends: list[int] = ends if isinstance(ends, list) else [ends]

    def __call__(self, tasks: Sequence[WritingTask]) -> list[TextReply]:
        """Answer a batch; those that are to be written alike together.

        Raises:
            ValueError: When a request cannot be put to this model.
            ModuleNotFoundError: When llguidance is not installed and answers shall keep to their schema.
        """
        replies: dict[int, TextReply] = {}
        for writing in dict.fromkeys(task.writing for task in tasks):
            numbers = [number for number, task in enumerate(tasks) if task.writing == writing]
            # Processors of pictures pad batches in ways of their own: each request alone.
            for batch in [[number] for number in numbers] if self._sees else [numbers]:
                written = self._write([tasks[number].request for number in batch], writing)
                replies.update(zip(batch, written, strict=True))
        return [replies[number] for number in range(len(tasks))]

    def _write(self, requests: Sequence[TextRequest], writing: Writing) -> list[TextReply]:
        from transformers import GenerationConfig, LogitsProcessorList

        inputs = self._inputs(requests).to(self._model.device)
        length = inputs["input_ids"].shape[1]
        self._check_length(length, writing.max_tokens)
        draws = LogitsProcessorList()
        if writing.json_schema and any(request.schema is not None for request in requests):
            draws.append(self._json_constraint().processor([request.schema for request in requests]))
        if writing.temperature > 0:
            draws.append(_draw_by_row([request.seed for request in requests], writing.temperature))
        config = GenerationConfig(
            max_new_tokens=writing.max_tokens,
            do_sample=False,  # the processor draws: the likeliest token after its noise is a sample
            eos_token_id=self._ends,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        output = self._model.generate(**inputs, generation_config=config, logits_processor=draws)
        counts = inputs["attention_mask"].sum(dim=1).tolist()
        return [self._reply(ids.tolist(), read) for ids, read in zip(output[:, length:], counts, strict=True)]

    def _inputs(self, requests: Sequence[TextRequest]) -> Any:
        if self._sees:
            messages = [_opened(message) for message in requests[0].messages]
            return self._processor.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        prompts = [
            self._tokenizer.apply_chat_template(list(request.messages), add_generation_prompt=True, tokenize=False)
            for request in requests
        ]
        # The template has written all special tokens already.
        return self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)

    def _check_length(self, prompt: int, answer: int) -> None:
        """Beyond its positions a model writes nonsense, and says nothing about it."""
        most = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if most is not None and prompt + answer > most:
            raise ValueError(f"{prompt} tokens of prompt and {answer} of answer are more than the model's {most}")

    def _json_constraint(self) -> JsonConstraint:
        if self._constraint is None:
            self._constraint = JsonConstraint(self._tokenizer, self._ends)
        return self._constraint

    def _reply(self, tokens: list[int], read: int) -> TextReply:
        stops = [position for position, token in enumerate(tokens) if token in self._ends]
        written = tokens[: stops[0]] if stops else tokens
        return TextReply(
            text=self._tokenizer.decode(written, skip_special_tokens=True),
            model=self._name,
            finish_reason="stop" if stops else "length",
            input_tokens=read,
            output_tokens=len(written),
        )


def _opened(message: Message) -> Message:
    """The message with its data URLs opened, in the form that processors take."""
    if isinstance(message["content"], str):
        return message
    return {"role": message["role"], "content": [_part(part) for part in message["content"]]}


def _part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] != "image_url":
        return part
    encoded = part["image_url"]["url"].partition("base64,")[2]
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        return {"type": "image", "image": image.convert("RGB")}


def _draw_by_row(seeds: Sequence[int], temperature: float) -> Callable[[Any, Any], Any]:
    """Sampling as noise on the logits (Gumbel's trick), each row's from a generator of its own."""
    import torch

    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(_ids: Any, scores: Any) -> Any:
        times = torch.stack([torch.empty(scores.shape[-1]).exponential_(generator=one) for one in generators])
        noise = -times.clamp(min=torch.finfo(times.dtype).tiny).log()
        return scores.float() / temperature + noise.to(scores.device)

    return draw
