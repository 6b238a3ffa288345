"""`FusionEngine`: questions about images in, answers out.

Loads a model with its processor, turns conversations into batches, shares an image's features among its questions and
streams answers. Several threads may use one engine. Knows no HTTP, no data sets and no command line.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import BatchFeature

from fusionvl.engine.decoding import Choose, RunningAnswer, decode
from fusionvl.engine.emission import TokenBytes
from fusionvl.engine.events import Event, Piece, SamplingSettings
from fusionvl.engine.feature_cache import FeatureCache, with_features
from fusionvl.engine.loading import check_belong_together, load_placed, load_processor
from fusionvl.engine.quantization import bits_of
from fusionvl.engine.sampling import Sampler
from fusionvl.engine.sources import shipped_model
from fusionvl.model import FusionForConditionalGeneration
from fusionvl.processing import FusionProcessor

Conversation = list[dict[str, Any]]
DEFAULT_MAX_NEW_TOKENS = SamplingSettings.max_new_tokens
DEFAULT_CACHE_BYTES = 2**30
_NOT_BATCHED = ("streamer", "return_dict_in_generate", "custom_generate")
_NOT_STREAMED = (*_NOT_BATCHED, "num_beams", "num_return_sequences", "assistant_model", "prompt_lookup_num_tokens")


class ContextExceeded(ValueError):  # noqa: N818 - what happened to the conversation, not what went wrong here
    """The decoder's context does not hold the conversation."""


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        text: Without special tokens.
        finish_reason: `stop` when the model ended its turn, `length` when it ran out of new tokens.
        prompt_tokens: Tokens of the prompt, image and latent tokens among them.
        answer_tokens: Tokens generated.
    """

    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    answer_tokens: int


class FusionEngine:
    """Answers questions about images.

    Args:
        model: In evaluation mode.
        processor: The model's processor.
        cache_bytes: Bound on the image features kept for further questions.

    Raises:
        ValueError: When model and processor do not belong together.
    """

    def __init__(
        self,
        model: FusionForConditionalGeneration,
        processor: FusionProcessor,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        check_belong_together(model, processor)
        self.model = model
        self.processor = processor
        self.cache = FeatureCache(cache_bytes)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        dtype: str = "auto",
        device: str = "auto",
        quantize: Literal["int8", "int4"] | None = None,
        device_map: Any = None,
        quantization_config: Any = None,
        attn_implementation: str | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> "FusionEngine":
        """Load a model and its processor.

        Args:
            name: Hub name or folder, of ours or released by the authors; None is the model shipped with the package.
            dtype: `float32`, `bfloat16`, `float16`, or `auto`: the checkpoint's own where the device computes in it,
                else the best there is.
            device: A torch device, or `auto`: a GPU when there is one.
            quantize: `int8` or `int4` for weights in fewer bits; what that costs is in docs/quantization.md.
            device_map: As in transformers, to spread a model over several devices.
            quantization_config: As in transformers, in place of `quantize`.
            attn_implementation: As in transformers.
            cache_bytes: Bound on the image features kept for further questions.

        Raises:
            ValueError: When there is no such model, it cannot be loaded, or memory does not suffice; with the reason.
        """
        source = str(name) if name is not None else str(shipped_model())
        processor = load_processor(source)  # the small part first
        model = load_placed(
            source,
            dtype,
            device,
            quantize,
            device_map=device_map,
            quantization_config=quantization_config,
            attn_implementation=attn_implementation,
        )
        return cls(model, processor, cache_bytes)

    @property
    def ends(self) -> list[int]:
        """Tokens that end an answer: those that the model's generation config lists, and the template's own."""
        listed = self.model.generation_config.eos_token_id
        ends = {self.processor.end_of_turn_id, *(listed if isinstance(listed, list) else [listed])}
        return sorted(end for end in ends if end is not None)

    @property
    def format(self) -> str:
        """In which number format and where it answers: `bfloat16 on cpu`, `int8 on cpu`."""
        return f"{bits_of(self.model) or str(self.model.dtype).removeprefix('torch.')} on {self.model.device}"

    def ask(self, image: Any, question: str, **settings: Any) -> str:
        """Answer one question about one image.

        Args:
            image: A path, bytes or PIL image; None asks without an image.
            question: Plain text.
            **settings: As for `answer`.

        Raises:
            ValueError: As `answer`.
        """
        return self.answer([conversation(image, question)], **settings)[0].text

    def answer(
        self,
        conversations: Sequence[Conversation],
        *,
        num_latents: int | None = None,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
        **generation: Any,
    ) -> list[Answer]:
        """Answer the last question of each conversation, all in one batch.

        Args:
            conversations: Lists of messages (`role`, `content` of text and image parts).
            num_latents: Latent tokens of each question; None is the processor's default.
            max_new_tokens: Bound on each answer; the decoder's context may bound it further.
            **generation: Settings of transformers' `generate` (`do_sample`, `temperature`, `num_beams`, ...). Without
                `do_sample=True` the likeliest token is taken, whatever the model's own generation config says.

        Raises:
            ValueError: When an image or a conversation cannot be used, or does not fit the context; with the reason.
        """
        _refuse(generation, *_NOT_BATCHED)
        inputs = self.encode(conversations, num_latents)
        generation = {
            "do_sample": False,
            "eos_token_id": self.ends or None,
            "max_new_tokens": self.room(inputs, max_new_tokens),
            **generation,
        }
        with torch.inference_mode():
            sequences = self.model.generate(**with_features(inputs, self.model, self.cache), **generation)
        prompt_tokens, prompt_length = inputs["attention_mask"].sum(1).tolist(), inputs["input_ids"].shape[1]
        copies, ends = sequences.shape[0] // len(conversations), _as_set(generation["eos_token_id"])
        return [
            self._to_answer(tokens, prompt_tokens[row // copies], ends)
            for row, tokens in enumerate(sequences[:, prompt_length:].tolist())
        ]

    def stream(
        self,
        messages: Conversation,
        *,
        num_latents: int | None = None,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
        **generation: Any,
    ) -> Iterator[str]:
        """Answer the last question of one conversation, piece by piece; closing the iterator stops the work.

        Args:
            messages: The conversation.
            num_latents: As for `answer`.
            max_new_tokens: As for `answer`.
            **generation: As for `answer`, for one sequence; `stop_strings` are no part of the answer.

        Raises:
            ValueError: As `answer`, before the first piece.
        """
        _refuse(generation, *_NOT_STREAMED)
        stop = generation.pop("stop_strings", None) or ()
        settings = SamplingSettings(
            max_new_tokens=max_new_tokens,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            num_latents=num_latents,
        )
        events = self._events(messages, settings, None, {"do_sample": False, **generation})
        return (event.text for event in events if isinstance(event, Piece) and event.text)

    def events(self, messages: Conversation, settings: SamplingSettings) -> Iterator[Event]:
        """Answer the last question of one conversation `settings.n` times; closing the iterator stops the work.

        Picture and prompt are worked on once, however many answers there are. Of the model's own generation settings
        those on sampling do not count.

        Args:
            messages: The conversation.
            settings: How to answer.

        Yields:
            The answers' pieces as their tokens come, and one `Finish` for each of them.

        Raises:
            ContextExceeded: When the decoder's context does not hold the conversation.
            ValueError: As `answer`; all of them before the first event.
        """
        return self._events(messages, settings, Sampler(settings).choose, {"do_sample": False})

    def _events(
        self, messages: Conversation, settings: SamplingSettings, choose: Choose | None, generation: dict[str, Any]
    ) -> Iterator[Event]:
        """Prepare at once, so that what is wrong is said at once; generate when the first event is asked for."""
        inputs = self.encode([messages], settings.num_latents)
        generation = {
            "eos_token_id": self.ends or None,
            "max_new_tokens": self.room(inputs, settings.max_new_tokens),
            **generation,
            "num_beams": 1,
            "use_cache": True,
        }
        ends, prompt_tokens = _as_set(generation["eos_token_id"]), inputs["input_ids"].shape[1]
        answers = [
            RunningAnswer(index, settings.stop, self._token_bytes, ends, prompt_tokens) for index in range(settings.n)
        ]
        generation["custom_generate"] = partial(
            decode, answers=answers, choose=choose, top_logprobs=settings.top_logprobs
        )

        def generate() -> Iterator[Event]:
            yield from self.model.generate(**with_features(inputs, self.model, self.cache), **generation)

        return generate()

    def encode(self, conversations: Sequence[Conversation], num_latents: int | None) -> BatchFeature:
        """What the processor makes of conversations whose answers are to be generated, padded on the left.

        Raises:
            ValueError: As `answer`.
        """
        latents = {} if num_latents is None else {"num_latents": num_latents}
        return self.processor.apply_chat_template(
            list(conversations),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={"padding_side": "left", **latents},
        )

    def room(self, inputs: BatchFeature, max_new_tokens: int) -> int:
        """How many of `max_new_tokens` the decoder's context holds beside the longest prompt.

        Raises:
            ContextExceeded: When it holds none, with the counts.
            ValueError: When `max_new_tokens` is no number of tokens.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
        context = self.model.config.text_config.max_position_embeddings
        longest = int(inputs["attention_mask"].sum(1).max())
        if longest >= context:
            raise ContextExceeded(
                f"The conversation takes {longest} tokens, the context holds {context}: shorten it, or use fewer "
                f"latent tokens"
            )
        return min(max_new_tokens, context - longest)

    @cached_property
    def _token_bytes(self) -> TokenBytes:
        return TokenBytes(self.processor.tokenizer)

    def _to_answer(self, tokens: list[int], prompt_tokens: int, ends: set[int]) -> Answer:
        length = next((place for place, token in enumerate(tokens) if token in ends), None)
        return Answer(
            text=self.processor.tokenizer.decode(tokens[:length], skip_special_tokens=True).strip(),
            finish_reason="length" if length is None else "stop",
            prompt_tokens=prompt_tokens,
            answer_tokens=len(tokens) if length is None else length + 1,
        )


def conversation(image: Any, question: str) -> Conversation:
    """One question about one image (or None) as messages."""
    content: list[dict[str, Any]] = [{"type": "text", "text": question}]
    if image is not None:
        content.insert(0, {"type": "image", "image": image})
    return [{"role": "user", "content": content}]


def _as_set(ends: int | list[int] | None) -> set[int]:
    return {ends} if isinstance(ends, int) else set(ends or ())


def _refuse(generation: dict[str, Any], *names: str) -> None:
    """Settings that would change what comes back."""
    given = [name for name in names if name in generation]
    if given:
        raise ValueError(f"The engine sets {', '.join(given)} itself, or cannot use it here: leave it out")
