"""Prompts -> the engine: one item a picture, which holds all that its questions and latent tokens need.

The item begins with the prompt and ends with its last question, so that the scheduler can cut nothing off before it;
and it is known by picture, question and latent tokens together, for features of one question are no answer to
another. Knows what our processor made; knows no text and no model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature
from vllm.inputs.engine import mm_input
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems, PlaceholderRange
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    ProcessorInputs,
)

from fusionvl.model.token_layout import IMAGE, LATENT, TEXT
from fusionvl.processing.processing import FusionProcessor

INPUTS = "fusionvl_inputs"
"""Under which an `Inputs` travels in a prompt."""


@dataclass(frozen=True)
class Inputs:
    """What our processor made of one prompt.

    Attributes:
        token_ids: Of the prompt, S; a token of the vocabulary stands for image and latent tokens.
        token_types: (S,), as in `token_layout`.
        pixel_values: (5, 3, H, W); None without a picture.
        guide_input_ids: (G,) of the questions.
    """

    token_ids: tuple[int, ...]
    token_types: torch.Tensor
    pixel_values: torch.Tensor | None
    guide_input_ids: torch.Tensor

    @classmethod
    def of(cls, batch: Mapping[str, torch.Tensor]) -> "Inputs":
        """Of a batch of one."""
        ids, types = batch["input_ids"][0], batch["mm_token_type_ids"][0]
        placeholder = (types == IMAGE) | (types == LATENT)
        ids = ids.masked_fill(placeholder, int(ids[~placeholder][0]))  # their own ids may lie outside the vocabulary
        pixels = batch.get("pixel_values")
        guide = batch["guide_input_ids"][0] if pixels is not None else types.new_zeros(0)
        return cls(tuple(ids.tolist()), types, None if pixels is None else pixels[0], guide)


class FusionProcessingInfo(BaseProcessingInfo):
    """What vLLM asks about pictures."""

    def get_hf_processor(self, **kwargs: object) -> FusionProcessor:
        """Our processor of the model, loaded once; `--mm-processor-kwargs` may set `num_latents`."""
        processor = self.__dict__.get("_processor")
        if processor is None:
            config = self.ctx.model_config
            settings = self.ctx.get_mm_config().mm_processor_kwargs or {}
            hub = {"revision": config.revision} if config.revision else {}
            processor = self._processor = FusionProcessor.from_pretrained(config.model, **hub, **settings)
        return processor

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """One picture a conversation."""
        return {"image": 1}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """An item grows with the questions about the picture, up to the context."""
        return {"image": seq_len}


class FusionDummyInputs(BaseDummyInputsBuilder[FusionProcessingInfo]):
    """A question about a white picture, to measure memory with."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        """The question."""
        return "what is this?"

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Any) -> dict[str, Any]:
        """The picture."""
        side = self.info.get_hf_processor().image_processor.side
        return {"image": [Image.new("RGB", (side, side), "white")] * mm_counts.get("image", 0)}


class FusionMultiModalProcessor(BaseMultiModalProcessor[FusionProcessingInfo]):
    """Lays out the item; all else was done when the prompt was made."""

    def get_dummy_inputs(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Any) -> ProcessorInputs:
        """As the renderer would make them."""
        data = self.dummy_inputs.get_dummy_mm_data(seq_len, mm_counts, mm_options)
        content = [
            {"type": "image", "image": data["image"][0]},
            {"type": "text", "text": self.dummy_inputs.get_dummy_text(mm_counts)},
        ]
        batch = self.info.get_hf_processor().apply_chat_template(
            [{"role": "user", "content": content}], tokenize=True, return_dict=True, add_generation_prompt=True
        )
        items = self.info.parse_mm_data(data, validate=False)
        return ProcessorInputs([], items, hf_processor_mm_kwargs={INPUTS: Inputs.of(batch)})

    def apply(self, inputs: ProcessorInputs, timing_ctx: Any) -> Any:
        """The prompt's ids, and the one item."""
        made = inputs.hf_processor_mm_kwargs[INPUTS]
        assert isinstance(made, Inputs)
        assert made.pixel_values is not None
        pixels = made.pixel_values.to(self.info.ctx.model_config.dtype)
        marked = made.token_types != TEXT
        length = 1 + int(marked.nonzero().max())
        batch = BatchFeature(
            {
                "pixel_values": pixels[None],
                "guide_input_ids": made.guide_input_ids[None],
                "row_types": made.token_types[marked][None],
                "picture": torch.frombuffer(bytearray(_digest(pixels)), dtype=torch.uint8)[None],
            }
        )
        question = torch.tensor(made.token_ids), made.token_types, made.guide_input_ids
        return mm_input(
            prompt_token_ids=list(made.token_ids),
            mm_kwargs=MultiModalKwargsItems.from_hf_inputs(batch, self._get_mm_fields_config(batch, {})),
            mm_hashes={"image": [_digest(pixels, *question).hex()]},
            mm_placeholders={"image": [PlaceholderRange(0, length, is_embed=marked[:length])]},
        )

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Any) -> dict[str, MultiModalFieldConfig]:
        on_cpu = ("row_types", "picture")  # looked at before anything is computed
        return {name: MultiModalFieldConfig.batched("image", keep_on_cpu=name in on_cpu) for name in hf_inputs}

    def _get_prompt_updates(self, *_args: Any) -> list[Any]:
        return []  # `apply` lays the prompt out itself


def _digest(*tensors: torch.Tensor) -> bytes:
    """A name for tensors by shape and content."""
    name = blake2b(digest_size=16)
    for tensor in tensors:
        name.update(f"{tuple(tensor.shape)}".encode())
        name.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return name.digest()
