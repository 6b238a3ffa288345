"""A language model that transformers runs in worker processes, one per device; one that sees pictures, or not.

However many clients of a model are open in a process, it is loaded once per device. Each request draws its own random
numbers, so an answer does not depend on what shares its batch (but for the rounding of batched arithmetic; a batch of
one is exact). Where an answer has a schema, llguidance knows which tokens may come next, and the model may choose no
others. Knows no prompts and no schemas of its own. transformers is imported in the workers only.
"""

import base64
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from fusionvl.data.extras import import_extra, locate
from fusionvl.synth.text_client import LocalModel, Message, RequestError, TextReply, TextRequest
from fusionvl.synth.workers import WorkError, Workers

Task: TypeAlias = tuple[TextRequest, LocalModel]
"""A request, with the settings that say how its answer is written."""

_Key: TypeAlias = tuple[str, str | None, str, tuple[str, ...], int]
_WORKERS: dict[_Key, Workers[Task, TextReply]] = {}
_CLIENTS: Counter[_Key] = Counter()

# As the examples in the prompts are written. Free white space would let a weak model write nothing but that.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class LocalClient:
    """A language model in worker processes.

    Args:
        settings: Which model, where and how.
    """

    def __init__(self, settings: LocalModel) -> None:
        self._settings = settings
        weights = (settings.model, settings.gguf_file, settings.dtype)
        self._key: _Key = (*weights, tuple(settings.devices), settings.batch_size)
        if self._key not in _WORKERS:
            _WORKERS[self._key] = Workers(partial(load, *weights), settings.devices, settings.batch_size)
        self._workers = _WORKERS[self._key]
        _CLIENTS[self._key] += 1

    async def complete(self, request: TextRequest) -> TextReply:
        """Answer a request; see `TextClient`."""
        try:
            return await self._workers((request, self._settings))
        except WorkError as error:
            raise RequestError(str(error)) from error

    def close(self) -> None:
        """End the workers, unless another client uses them."""
        _CLIENTS[self._key] -= 1
        if not _CLIENTS[self._key]:
            del _CLIENTS[self._key], _WORKERS[self._key]
            self._workers.close()


def load(name: str, gguf_file: str | None, dtype: str, device: str) -> Callable[[Sequence[Task]], list[TextReply]]:
    """Load a model onto a device; what is returned answers batches of requests.

    Args:
        name: Hub name, folder, or `package:NAME`.
        gguf_file: In it, if any.
        dtype: What it computes in.
        device: `cpu`, `cuda:0`, ...

    Raises:
        ValueError: When the model is not found, cannot be loaded, or has no chat template.
    """
    import transformers

    import fusionvl.auto  # noqa: F401 - so that it may be a FUSION

    source = locate(name)
    choices = {} if gguf_file is None else {"gguf_file": gguf_file}
    try:
        config = transformers.AutoConfig.from_pretrained(source, **choices)
        sees = type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        if sees:
            processor = transformers.AutoProcessor.from_pretrained(source)
            model: Any = transformers.AutoModelForImageTextToText.from_pretrained(source, dtype=dtype)
        else:
            processor = transformers.AutoTokenizer.from_pretrained(source, padding_side="left", **choices)
            model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **choices)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} cannot be loaded as a language model: {error}") from error
    if not processor.chat_template:
        raise ValueError(f"{name} has no chat template: take a model that is tuned to follow instructions")
    shown = name if gguf_file is None else f"{name}/{gguf_file}"
    return LoadedModel(shown, processor, model.to(device).eval(), sees)


class LoadedModel:
    """A model on its device.

    Args:
        name: What replies call it.
        processor: Its processor or, when it sees nothing, its tokenizer.
        model: The model itself.
        sees: Whether it takes pictures.
    """

    def __init__(self, name: str, processor: Any, model: Any, sees: bool) -> None:
        self._name = name
        self._processor = processor
        self._tokenizer = processor.tokenizer if sees else processor
        self._model = model
        self._sees = sees
        self._vocabulary: Any = None  # as llguidance knows it
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        ends = model.generation_config.eos_token_id or self._tokenizer.eos_token_id
        self._ends: list[int] = ends if isinstance(ends, list) else [ends]

    def __call__(self, tasks: Sequence[Task]) -> list[TextReply]:
        """Answer a batch; those that are to be written alike together.

        Raises:
            ValueError: When a request cannot be put to this model.
            ModuleNotFoundError: When llguidance is not installed and answers shall keep to their schema.
        """
        replies: dict[int, TextReply] = {}
        alike: dict[tuple[object, ...], list[int]] = {}
        for number, (_, settings) in enumerate(tasks):
            # Processors of pictures pad batches in ways of their own: each request alone.
            way = (settings.temperature, settings.max_tokens, settings.json_schema, number if self._sees else None)
            alike.setdefault(way, []).append(number)
        for numbers in alike.values():
            written = self._write([tasks[number][0] for number in numbers], tasks[numbers[0]][1])
            replies.update(zip(numbers, written, strict=True))
        return [replies[number] for number in range(len(tasks))]

    def _write(self, requests: Sequence[TextRequest], settings: LocalModel) -> list[TextReply]:
        from transformers import GenerationConfig, LogitsProcessorList

        inputs = self._inputs(requests).to(self._model.device)
        length = inputs["input_ids"].shape[1]
        self._check_length(length, settings.max_tokens)
        draws = LogitsProcessorList()
        if settings.json_schema and any(request.schema is not None for request in requests):
            draws.append(self._json_masks([request.schema for request in requests]))
        if settings.temperature > 0:
            draws.append(_draw_by_row([request.seed for request in requests], settings.temperature))
        config = GenerationConfig(
            max_new_tokens=settings.max_tokens,
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

    def _json_masks(self, schemas: Sequence[dict[str, Any] | None]) -> "JsonMasks":
        needed_for = "Keeping a local model to JSON (json_schema: true)"
        library: Any = import_extra("llguidance", extra="synth", needed_for=needed_for)
        if self._vocabulary is None:
            bridge: Any = import_extra("llguidance.hf", extra="synth", needed_for=needed_for)
            try:
                self._vocabulary = bridge.from_tokenizer(self._tokenizer, eos_token=self._ends)
            except ValueError as error:
                raise ValueError(
                    f"The tokenizer of this model cannot be kept to JSON ({error}): set json_schema: false"
                ) from error
        matcher = library.LLMatcher
        grammars = [
            None if schema is None else matcher.grammar_from_json_schema(json.dumps(schema), overrides=_SPACING)
            for schema in schemas
        ]
        matchers = [None if grammar is None else matcher(self._vocabulary, grammar) for grammar in grammars]
        return JsonMasks(matchers, self._ends)

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


class JsonMasks:
    """A logits processor for one call of `generate`: follows what each row has written so far.

    Args:
        matchers: What llguidance knows of each row's schema; None for free text.
        ends: The tokens that end an answer.
    """

    def __init__(self, matchers: Sequence[Any], ends: list[int]) -> None:
        self._matchers = matchers
        self._ends = ends
        self._has_begun = False

    def __call__(self, ids: Any, scores: Any) -> Any:
        """Lets only those tokens pass that fit.

        Args:
            ids: Tokens so far, of shape (rows, length).
            scores: Logits of the next one, of shape (rows, vocabulary).

        Returns:
            The logits, with minus infinity where a token does not fit.

        Raises:
            ValueError: When a schema cannot be followed.
        """
        import torch

        fits = np.zeros(scores.shape, dtype=np.uint8)
        for row, matcher in enumerate(self._matchers):
            if matcher is None:
                fits[row] = 1
                continue
            if self._has_begun and not matcher.is_stopped():
                matcher.consume_token(int(ids[row, -1]))
            if matcher.is_stopped() and not matcher.is_error():
                fits[row, self._ends] = 1  # the answer is whole
                continue
            bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
            if matcher.is_error():
                raise ValueError(f"the answer cannot be kept to its schema: {matcher.get_error()}")
            width = min(len(bits), fits.shape[1])  # a model may have more logits than its tokenizer has tokens
            fits[row, :width] = bits[:width]
        self._has_begun = True
        return scores.masked_fill(torch.from_numpy(fits == 0).to(scores.device), float("-inf"))
