"""`FusionEngine`: questions about images in, answers out.

Loads a model with its processor, turns conversations into batches, shares an image's features among its questions and
streams answers. Several threads may use one engine. Knows no HTTP, no data sets and no command line.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import BatchFeature, StoppingCriteria, TextIteratorStreamer

from fusionvl.engine.feature_cache import FeatureCache, ImageFeatures
from fusionvl.engine.generation_request import ContextExceeded
from fusionvl.engine.loading import Placement, load_placed, load_processor
from fusionvl.engine.quantization import bits_of
from fusionvl.engine.sources import shipped_model
from fusionvl.model import FusionForConditionalGeneration
from fusionvl.model.vision_encoder import PatchStates
from fusionvl.processing import FusionProcessor

Conversation = list[dict[str, Any]]
DEFAULT_MAX_NEW_TOKENS = 512
DEFAULT_CACHE_BYTES = 2**30


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
        _check_belong_together(model, processor)
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
        placement = Placement(dtype, device, quantize, device_map, quantization_config, attn_implementation)
        processor = load_processor(source)
        return cls(load_placed(source, placement), processor, cache_bytes)

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
            **generation: Settings of transformers' `generate` (`do_sample`, `temperature`, `num_beams`, ...).

        Raises:
            ValueError: When an image or a conversation cannot be used, or does not fit the context; with the reason.
        """
        _refuse(generation, "streamer", "return_dict_in_generate")
        generation = {"eos_token_id": self.ends or None, **generation}
        inputs = self.encode(conversations, num_latents)
        with torch.inference_mode():
            sequences = self.model.generate(
                **self.with_features(inputs), max_new_tokens=self.room(inputs, max_new_tokens), **generation
            )
        prompt_length = inputs["input_ids"].shape[1]
        prompt_tokens = inputs["attention_mask"].sum(1).tolist()
        copies = sequences.shape[0] // len(conversations)
        return [
            self._to_answer(
                sequence[prompt_length:].tolist(), prompt_tokens[row // copies], generation["eos_token_id"]
            )
            for row, sequence in enumerate(sequences)
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
            **generation: As for `answer`.

        Raises:
            ValueError: As `answer`, before the first piece.
        """
        _refuse(generation, "streamer", "return_dict_in_generate", "num_beams", "num_return_sequences")
        inputs = self.encode([messages], num_latents)
        streamer = TextIteratorStreamer(self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        stop = _StopEvent()
        failure: list[Exception] = []
        settings = {
            **self.with_features(inputs),
            "max_new_tokens": self.room(inputs, max_new_tokens),
            "streamer": streamer,
            "eos_token_id": self.ends or None,
            "stopping_criteria": [*generation.pop("stopping_criteria", ()), stop],
            **generation,
        }

        def work() -> None:
            try:
                with torch.inference_mode():
                    self.model.generate(**settings)
            except Exception as error:  # noqa: BLE001 - handed to the caller's thread below
                failure.append(error)
                streamer.end()

        return _pieces(threading.Thread(target=work, daemon=True), streamer, stop, failure)

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

    def with_features(
        self, inputs: BatchFeature, compute: Callable[[torch.Tensor], ImageFeatures] | None = None
    ) -> dict[str, Any]:
        """The batch with its images' features on the model's device: remembered, or computed and remembered.

        Args:
            inputs: From `encode`.
            compute: What computes the features of an image that is not known yet; None: `image_features`.
        """
        settings: dict[str, Any] = dict(inputs)  # `generate` moves them, once it has looked at them on the CPU
        if "pixel_values" not in inputs:
            return settings
        with torch.inference_mode():
            features = [
                self.cache.get(pixels, compute or self.image_features) for pixels in inputs["pixel_values"].split(1)
            ]
        settings["pixel_values"] = settings["pixel_values"][:, -1:].to(self.model.device, self.model.dtype)
        # The model's configuration decides which features there are: all images have them, or none has.
        if maps := [feature.global_features for feature in features if feature.global_features is not None]:
            settings["global_features"] = torch.cat(maps)
        if states := [feature.patch_states for feature in features if feature.patch_states is not None]:
            settings["patch_states"] = PatchStates.cat(states)
        return settings

    def image_features(self, pixel_values: torch.Tensor) -> ImageFeatures:
        """What no question changes about images (N, 5, 3, H, W); not cached."""
        config = self.model.config
        pixels = pixel_values.to(self.model.device, self.model.dtype)
        return ImageFeatures(
            self.model.get_global_features(pixels) if config.uses_tiles else None,
            self.model.get_patch_states(pixels) if config.early_guidance == "masked" else None,
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

    def _to_answer(self, tokens: list[int], prompt_tokens: int, ends: int | list[int] | None) -> Answer:
        end_ids = {ends} if isinstance(ends, int) else set(ends or ())
        stopped = next((index for index, token in enumerate(tokens) if token in end_ids), None)
        kept = tokens if stopped is None else tokens[:stopped]
        return Answer(
            text=self.processor.tokenizer.decode(kept, skip_special_tokens=True).strip(),
            finish_reason="length" if stopped is None else "stop",
            prompt_tokens=prompt_tokens,
            answer_tokens=len(tokens) if stopped is None else stopped + 1,
        )


def conversation(image: Any, question: str) -> Conversation:
    """One question about one image (or None) as messages."""
    content: list[dict[str, Any]] = [{"type": "text", "text": question}]
    if image is not None:
        content.insert(0, {"type": "image", "image": image})
    return [{"role": "user", "content": content}]


def _check_belong_together(model: FusionForConditionalGeneration, processor: FusionProcessor) -> None:
    config = model.config
    pairs = {
        "pixels of a view": (config.vision_config.image_size, processor.image_processor.side),
        "pixels of a patch": (config.vision_config.patch_size, processor.patch_size),
        "image tokens of a picture": (config.num_image_tokens, processor.num_image_tokens),
        "window size": (config.window_size, processor.window_size),
        "use of latent tokens": (config.uses_latents, processor.num_latents > 0),
    }
    for what, (of_model, of_processor) in pairs.items():
        if of_model != of_processor:
            raise ValueError(
                f"Model and processor do not belong together: {what} {of_model} in the model, {of_processor} in the "
                f"processor"
            )


class _StopEvent(StoppingCriteria):
    """Ends generation at the next token once set."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.event.is_set(), device=input_ids.device)


def _refuse(generation: dict[str, Any], *names: str) -> None:
    """Settings that would change what comes back."""
    given = [name for name in names if name in generation]
    if given:
        raise ValueError(f"The engine sets {', '.join(given)} itself, or cannot use it here: leave it out")


def _pieces(
    thread: threading.Thread, streamer: TextIteratorStreamer, stop: _StopEvent, failure: list[Exception]
) -> Iterator[str]:
    thread.start()
    try:
        yield from (piece for piece in streamer if piece)
    finally:
        stop.event.set()
        thread.join()
    if failure:
        raise failure[0]
