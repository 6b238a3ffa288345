"""Training samples -> one batch with labels.

Takes the number of latent tokens that samples come with, or draws it. Images stay bytes: the model normalises them on
its device. Knows the processor; does not know datasets, devices or the order of samples.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from transformers import BatchFeature

from fusionvl.processing.conversation import validate_conversation
from fusionvl.processing.processing import FusionProcessor


@dataclass(frozen=True)
class FusionCollator:
    """Callable for a data loader: samples in, everything the model takes out.

    A training run of ours draws the number of latents once for each optimizer step, and its samples say it. Where they
    do not, as in transformers' or TRL's trainers, it depends on the seed and on the conversations of the batch alone.
    So there is no state to save: a resumed run, another number of workers or a repeated batch have the same number.

    Args:
        processor: encodes the conversations.
        num_latents: the counts to draw from, all equally likely, for samples that come without.
        seed: of the draw.
        max_length: tokens a row may have; later turns of longer conversations are left out.
        pad_to_multiple_of: rows and guides are padded to a multiple of this: fewer different lengths, each of which
            takes memory of its own.
        blank_images: whether a batch of text alone gets an image that no row is about, and the entry `blank_image`
            for the model: processes that train together wait for each other in every layer, so all must run all.
    """

    processor: FusionProcessor
    num_latents: Sequence[int] = (4, 16, 36, 64, 144)
    seed: int = 0
    max_length: int | None = None
    pad_to_multiple_of: int = 1
    blank_images: bool = False

    def __post_init__(self) -> None:
        if not self.num_latents:
            raise ValueError("num_latents is empty: give at least one count to draw from")

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> BatchFeature:
        """Encode a batch.

        Args:
            samples: each with `messages` (roles and content) and `image` (anything `load_image` takes, or None), and
                with `num_latents`, the same in all of a batch, or without. The image goes where the messages have an
                image part, else before the first question.

        Returns:
            The processor's output with `labels`, right padded: plain tensors, `pixel_values` uint8 if the model can
            normalise them as the processor does.

        Raises:
            ValueError: a sample cannot be encoded, or samples come with different numbers of latents; nothing is
                skipped or replaced.
        """
        for number, sample in enumerate(samples):
            try:
                validate_conversation(sample["messages"])
            except ValueError as error:
                raise ValueError(f"sample {number} of the batch: {error}") from error
        batch = self._encode(samples, self._num_latents(samples))
        if not self.blank_images or "pixel_values" in batch:
            return batch
        blank = self._encode([_blank()], min(self.num_latents))
        batch.update({name: blank[name] for name in ("pixel_values", "guide_input_ids", "guide_attention_mask")})
        batch["blank_image"] = True
        return batch

    def _encode(self, samples: Sequence[Mapping[str, Any]], num_latents: int) -> BatchFeature:
        conversations = [_with_image(sample["messages"], sample.get("image")) for sample in samples]
        options = {"return_labels": True, "padding_side": "right", "num_latents": num_latents}
        options["pad_to_multiple_of"] = self.pad_to_multiple_of
        options["do_normalize"] = not self.processor.image_processor.model_normalizes
        if self.max_length is not None:
            options["max_length"] = self.max_length
        return self.processor.apply_chat_template(
            conversations, tokenize=True, return_dict=True, processor_kwargs=options
        )

    def _num_latents(self, samples: Sequence[Mapping[str, Any]]) -> int:
        stated = {sample.get("num_latents") for sample in samples}
        if len(stated) > 1:
            raise ValueError(f"the samples of a batch come with different numbers of latent tokens: {stated}")
        (number,) = stated
        return self.draw(samples) if number is None else int(number)

    def draw(self, samples: Sequence[Mapping[str, Any]]) -> int:
        """The number of latent tokens for a batch."""
        digest = hashlib.sha256(str(self.seed).encode())
        for sample in samples:
            for message in sample["messages"]:
                digest.update(_text_of(message["content"]).encode("utf-8", "surrogatepass"))
        return self.num_latents[int.from_bytes(digest.digest()[:8], "big") % len(self.num_latents)]


def _blank() -> dict[str, Any]:
    messages = [{"role": "user", "content": "."}, {"role": "assistant", "content": "."}]
    return {"messages": messages, "image": Image.new("RGB", (1, 1))}


def _with_image(messages: Sequence[Mapping[str, Any]], image: Any) -> list[dict[str, Any]]:
    """Copy the messages with the image in its place."""
    copies = [dict(message) for message in messages]
    for message in copies:
        if isinstance(message["content"], str):
            message["content"] = [{"type": "text", "text": message["content"]}]
    places = [
        (message, position)
        for message in copies
        for position, part in enumerate(message["content"])
        if part.get("type") == "image" and not any(key in part for key in ("image", "path", "url", "base64"))
    ]
    if image is None:
        return copies
    part = {"type": "image", "image": image}
    if places:
        message, position = places[0]
        message["content"] = [*message["content"][:position], part, *message["content"][position + 1 :]]
        return copies
    for message in copies:
        if message["role"] == "user":
            message["content"] = [part, *message["content"]]
            break
    return copies


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part.get("type") == "text")
