"""`FusionProcessor`: conversations and images -> everything the model takes.

The one path: a chat template renders the conversation, `__call__` takes the rendered text apart again and encodes it.
`apply_chat_template(tokenize=True)`, `pipeline("image-text-to-text")` and TRL all end in that `__call__`. The guide
text is cut from the rendered text at the template's own headers (`chat_format.py`), so it never holds an answer.
Does not know the model, files of datasets or how batches are drawn.

    processor.apply_chat_template(messages, tokenize=True, return_dict=True, add_generation_prompt=True)
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerBase
from transformers.processing_utils import ImagesKwargs, ProcessorMixin, TextKwargs
from transformers.tokenization_utils_base import AddedToken
from transformers.utils.chat_template_utils import render_jinja_template

from fusionvl.processing.batching import PaddingSide, batch_guides, batch_rows
from fusionvl.processing.chat_format import (
    VISION_END,
    VISION_START,
    ChatFormat,
    learn_chat_format,
    load_chat_template,
    mark_control_tokens,
    unmarked,
)
from fusionvl.processing.conversation import as_conversations, images_of, validate_conversation
from fusionvl.processing.image_processing import VIEWS_PER_IMAGE, FusionImageProcessorPil, ImageLike
from fusionvl.processing.released import HUB_ARGUMENTS, released_parts
from fusionvl.processing.row_encoding import EncodedRow, Expansion, drop_last_turn, encode_row
from fusionvl.processing.text_encoding import TextEncoder
from fusionvl.processing.tokenizer_files import load_tokenizer

# Arguments of one call. Those that every processor of transformers takes are accepted, used or not.
_OWN_OPTIONS = frozenset(
    {"num_latents", "return_labels", "return_assistant_tokens_mask", "sanitize_control_tokens", "return_tensors"}
)
_CALL_OPTIONS = _OWN_OPTIONS | TextKwargs.__annotations__.keys() | ImagesKwargs.__annotations__.keys()
_GROUPS = ("common_kwargs", "text_kwargs", "images_kwargs")  # transformers' way of naming whom an argument is for


class FusionProcessor(ProcessorMixin):
    """Image processor, tokenizer and chat template of one FUSION model.

    Missing placeholder tokens are added to the tokenizer. Its padding token defaults to its end of sequence.

    Args:
        image_processor: makes the five views.
        tokenizer: of the language model; must be a fast one.
        chat_template: `llama_3`, `phi_3`, `chatml`, or jinja text that writes the same vision markup.
        num_latents: latent tokens of each question, a perfect square; 0 leaves their markup out.
        image_token_grid: side of the grid of image tokens if not the patch grid (FUSION-L: 16).
        tile_tokens: whether the patches of the tiles are image tokens, too (LLaVA-NeXT's way).
        leading_space: whether every text begins with a space of its own, as released SentencePiece models expect
            (`TextEncoder`).
        patch_size: side of a patch of the vision encoder in pixels.
        window_size: side of the window each latent token looks through.
        image_token, latent_token: placeholders in rendered text.

    Raises:
        ValueError: slow tokenizer, no chat template or one without vision markup, impossible number of latents.
    """

    def __init__(
        self,
        image_processor: FusionImageProcessorPil,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        num_latents: int = 64,
        image_token_grid: int | None = None,
        patch_size: int = 14,
        window_size: int = 3,
        image_token: str = "<image>",
        latent_token: str = "<latent_image>",
        tile_tokens: bool = False,
        leading_space: bool = False,
    ) -> None:
        if not tokenizer.is_fast:
            raise ValueError(f"{type(tokenizer).__name__} is a slow tokenizer; FusionProcessor needs a fast one")
        self.num_latents = num_latents
        self.image_token_grid = image_token_grid
        self.tile_tokens = tile_tokens
        self.leading_space = leading_space
        self.patch_size = patch_size
        self.window_size = window_size
        self.image_token = image_token
        self.latent_token = latent_token
        _add_placeholders(tokenizer, [VISION_START, VISION_END, image_token, latent_token])
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        self.latent_token_id = tokenizer.convert_tokens_to_ids(latent_token)
        super().__init__(image_processor, tokenizer, chat_template=load_chat_template(chat_template))
        self.check_num_latents(num_latents)
        self._check_headers(self.chat_format)

    @property
    def chat_format(self) -> ChatFormat:
        """The literal text the chat template puts around questions and answers."""
        special_tokens = frozenset(
            (name, token) for name, token in self.tokenizer.special_tokens_map.items() if isinstance(token, str)
        )
        return learn_chat_format(self.chat_template, special_tokens, self.image_token, self.latent_token)

    @property
    def text_encoder(self) -> TextEncoder:
        """How texts become ids."""
        return TextEncoder(self.tokenizer, self.leading_space)

    @property
    def end_of_turn_id(self) -> int | None:
        """The token that ends every answer, whatever else may; None where the template has no single token for it."""
        return self.tokenizer.added_tokens_encoder.get(self.chat_format.answer_end.strip())

    @property
    def num_image_tokens(self) -> int:
        """Image tokens of one image."""
        views = VIEWS_PER_IMAGE if self.tile_tokens else 1
        return views * (self.image_token_grid or self._patch_grid) ** 2

    @property
    def model_input_names(self) -> list[str]:
        """Keys of a call's result that the model takes."""
        return [
            "input_ids",
            "attention_mask",
            "mm_token_type_ids",
            "pixel_values",
            "guide_input_ids",
            "guide_attention_mask",
        ]

    def apply_chat_template(
        self,
        conversation: Any,
        *,
        tokenize: bool = False,
        return_dict: bool = False,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        chat_template: str | None = None,
        sanitize_control_tokens: bool = True,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Render one conversation or a batch, and encode it if asked to.

        Control tokens and placeholders in the text of messages are taken as plain text when `tokenize=True`.

        Args:
            conversation: messages (`role`, `content` as string or list of text and image parts), or a list of such.
            tokenize: encode; else return the rendered text, in which user-written control tokens are not harmless.
            return_dict: with `tokenize`, return all that `__call__` returns; else the ids alone.
            add_generation_prompt: end with the header of an answer, padded on the left unless told otherwise.
            continue_final_message: leave the last answer open.
            chat_template: this processor's own, or None.
            sanitize_control_tokens: False if user text may write control tokens.
            processor_kwargs: arguments of `__call__`: `num_latents`, `return_labels`, `max_length`, ...
            **kwargs: arguments of `__call__`, too, or variables of the template.

        Raises:
            ValueError: an impossible conversation, an argument that neither `__call__` nor the template knows, or any
                reason of `__call__`.
        """
        if chat_template not in (None, self.chat_template):
            raise ValueError("the guide text is cut at this processor's headers: set processor.chat_template instead")
        conversations, is_batch = as_conversations(conversation)
        for number, messages in enumerate(conversations):
            try:
                validate_conversation(messages)
            except ValueError as error:
                raise ValueError(f"conversation {number}: {error}") from error
        options = {**(processor_kwargs or {}), **{n: kwargs.pop(n) for n in [*kwargs] if n in _CALL_OPTIONS}}
        variables = {name: value for name, value in kwargs.items() if value is not None}
        if unknown := [name for name in variables if name not in self.chat_template]:
            raise ValueError(f"neither FusionProcessor nor its chat template knows {', '.join(unknown)}")
        images = [images_of(messages) for messages in conversations]
        is_sanitized = tokenize and sanitize_control_tokens
        if is_sanitized:
            control_tokens = self._control_tokens()
            conversations = [mark_control_tokens(messages, control_tokens) for messages in conversations]
        texts, _ = render_jinja_template(
            conversations=conversations,
            chat_template=self.chat_template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            **{**self.tokenizer.special_tokens_map, **variables},
        )
        if not tokenize:
            return texts if is_batch else texts[0]
        if add_generation_prompt:
            # Generation goes on where rows end, so prompts end together whatever the tokenizer's side for training.
            options.setdefault("padding_side", "left")
        batch = self(images=images, text=texts, sanitize_control_tokens=is_sanitized, **options)
        return batch if return_dict else batch["input_ids"]

    def __call__(
        self,
        images: ImageLike | Sequence[Any] | None = None,
        text: str | Sequence[str] | None = None,
        videos: None = None,
        audio: None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Encode rendered text and its images.

        Args:
            images: one image, images in row order, or one list per row.
            text: B rows as the chat template renders them; a row without vision markup may be any text. Control
                tokens that a user wrote cannot be told from the template's here; `apply_chat_template` can.
            videos, audio: not supported.
            **kwargs: `num_latents`, `return_labels`, `return_assistant_tokens_mask`, `padding_side`,
                `padding="max_length"`, `pad_to_multiple_of`, `max_length` (cuts whole turns off the end),
                `do_normalize` (False: `pixel_values` are uint8, which the model normalises),
                `add_special_tokens` (False: no BOS for pieces of a conversation; a conversation always has one).
                Rows are always padded to the longest and tensors are always torch.

        Returns:
            `input_ids`, `attention_mask`, `mm_token_type_ids` (B, S); with N > 0 images `pixel_values`
            (N, 5, 3, H, W), `guide_input_ids`, `guide_attention_mask` (N, G); on request `labels` and
            `assistant_masks` (B, S).

        Raises:
            ValueError: counts of images and placeholders differ, text is not as the template writes it, a row does
                not fit into `max_length`, an image cannot be used, or the number of latents is impossible.
        """
        if videos is not None or audio is not None:
            raise ValueError("FUSION takes text and images only, not videos or audio")
        if text is None:
            raise ValueError("text is missing: images come with the conversation they belong to")
        texts = [text] if isinstance(text, str) else list(text)
        if not texts or not all(isinstance(row, str) for row in texts):
            raise ValueError("text must be a string or a list of at least one string")
        options = _flat_options(kwargs)
        if options.get("return_tensors") not in (None, "pt"):
            raise ValueError(f"FusionProcessor returns torch tensors, not {options['return_tensors']!r}")
        num_latents = options.get("num_latents", self.num_latents)
        self.check_num_latents(num_latents)
        if not options.get("sanitize_control_tokens"):
            # Only apply_chat_template sets marks; in any other text they could hide a header.
            texts = [unmarked(row) for row in texts]

        row_images = self._images_of_rows(images, texts)
        rows = self._encode_rows(texts, num_latents, options)
        max_length = options.get("max_length")
        data = batch_rows(
            rows,
            self.tokenizer.pad_token_id,
            cast(PaddingSide, options.get("padding_side") or self.tokenizer.padding_side),
            min_length=max_length if options.get("padding") == "max_length" and max_length else 0,
            multiple_of=options.get("pad_to_multiple_of") or 1,
        )
        if not options.get("return_labels"):
            del data["labels"]
        if not options.get("return_assistant_tokens_mask"):
            del data["assistant_masks"]
        if row_images:
            do_normalize = options.get("do_normalize")
            data |= self.image_processor(row_images, return_tensors="pt", do_normalize=do_normalize)
            encoder = self.text_encoder
            guides = [encoder.prefix + encoder.encode_as_text(row.guide) for row in rows if row.guide is not None]
            multiple_of = options.get("pad_to_multiple_of") or 1
            data |= batch_guides(guides, self.tokenizer.pad_token_id, multiple_of)
        return BatchFeature(data)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Self:
        """Load a saved processor, or build the one of a released checkpoint, which has only tokenizer files.

        Args:
            pretrained_model_name_or_path: folder or hub name.
            **kwargs: hub arguments, and arguments of `__init__` that replace the saved ones.

        Raises:
            ValueError: a released checkpoint whose vision tower or language model is not known; the message says
                which argument to pass.
        """
        parts = released_parts(pretrained_model_name_or_path, kwargs)
        if parts is not None:
            return cls(**parts)
        return cast(Self, super().from_pretrained(pretrained_model_name_or_path, **kwargs))

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: Any, processor_dict: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        # Named here, so that loading works before, and without, registration with AutoImageProcessor.
        image_processor = FusionImageProcessorPil.from_pretrained(pretrained_model_name_or_path, **kwargs)
        tokenizer = load_tokenizer(pretrained_model_name_or_path, {n: kwargs[n] for n in HUB_ARGUMENTS if n in kwargs})
        return [image_processor, tokenizer]

    @property
    def _patch_grid(self) -> int:
        return self.image_processor.side // self.patch_size

    def check_num_latents(self, num_latents: int) -> None:
        """Refuse a number of latent tokens that is no square, or whose windows are larger than the global map.

        Raises:
            ValueError: With the numbers.
        """
        side = math.isqrt(num_latents) if num_latents >= 0 else -1
        if side * side != num_latents:
            raise ValueError(f"num_latents must be a perfect square (4, 16, 36, ...) or 0, got {num_latents}")
        map_side = 2 * self._patch_grid
        if self.window_size * side > map_side:
            raise ValueError(
                f"{num_latents} latent tokens with windows of {self.window_size}x{self.window_size} need a global map "
                f"of at least {self.window_size * side}x{self.window_size * side}, but {self.image_processor.side} px "
                f"views with {self.patch_size} px patches give {map_side}x{map_side}: choose at most "
                f"{(map_side // self.window_size) ** 2} latents"
            )

    def _check_headers(self, chat_format: ChatFormat) -> None:
        """A header that is plain text could be forged by whoever writes a question."""
        control_tokens = self.tokenizer.added_tokens_encoder
        for header in (chat_format.user_header, chat_format.answer_header):
            if not any(token in header for token in control_tokens if not token.isspace()):
                raise ValueError(
                    f"the tokenizer has no control token for the chat template's header {header!r}: add its tokens to "
                    "the tokenizer as special tokens, or choose the template the tokenizer was made for"
                )

    def _images_of_rows(self, images: Any, texts: Sequence[str]) -> list[Any]:
        """The images in row order, after checking that each row has as many as it has image placeholders."""
        expected = [self.chat_format.count_placeholders(text)[0] for text in texts]
        if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4:
            images = list(images)
        nested = isinstance(images, (list, tuple)) and any(isinstance(row, (list, tuple)) for row in images)
        if not nested:
            flat = list(images) if isinstance(images, (list, tuple)) else [images]
            flat = [image for image in flat if image is not None]
            _check_counts(len(flat), sum(expected))
            return flat
        per_row = [[row] if not isinstance(row, (list, tuple)) else list(row) for row in images]
        if len(per_row) != len(texts):
            raise ValueError(f"{len(per_row)} lists of images for {len(texts)} rows of text: pass one list per row")
        for number, (row, count) in enumerate(zip(per_row, expected, strict=True)):
            row[:] = [image for image in row if image is not None]
            _check_counts(len(row), count, f" in row {number}")
        return [image for row in per_row for image in row]

    def _encode_rows(self, texts: Sequence[str], num_latents: int, options: dict[str, Any]) -> list[EncodedRow]:
        if options.get("truncation") not in (None, False) and options.get("max_length") is None:
            raise ValueError("truncation needs max_length: the number of tokens a row may have")
        chat_format = self.chat_format
        expansion = Expansion(self.image_token_id, self.latent_token_id, self.num_image_tokens, num_latents)
        encoder = self.text_encoder
        rows = []
        for number, text in enumerate(texts):
            text, prefix, is_piece = self._with_prefix(text, options.get("add_special_tokens") is not False)
            try:
                row = encode_row(encoder, chat_format, text, expansion, prefix, is_piece=is_piece)
                max_length = options.get("max_length")
                while max_length is not None and len(row.input_ids) > max_length:
                    text = drop_last_turn(chat_format, text, len(row.input_ids), max_length)
                    row = encode_row(encoder, chat_format, text, expansion, prefix, is_piece=is_piece)
            except ValueError as error:
                raise type(error)(f"row {number}: {error}") from error  # an OverLongError stays one
            rows.append(row)
        return rows

    def _with_prefix(self, text: str, wanted: bool) -> tuple[str, list[int], bool]:
        """The text without its BOS, what stands in front of its ids, and whether it is but a piece of a conversation.

        TRL passes `add_special_tokens=False` because most chat templates write BOS themselves. Ours leave it to the
        tokenizer, so a whole conversation gets it all the same, and only pieces of one (completions) do not.
        """
        bos, prefix = self.tokenizer.bos_token, self.text_encoder.prefix
        if prefix and bos and text.startswith(bos):
            return text.removeprefix(bos), prefix, False
        is_piece = not wanted and not self.chat_format.starts_conversation(text)
        return text, [] if is_piece else prefix, is_piece

    def _control_tokens(self) -> list[str]:
        """What user text must not write: special tokens, and those that the chat template writes."""
        added = self.tokenizer.added_tokens_decoder.values()
        return [
            token.content
            for token in added
            if token.special or (token.content in self.chat_template and not token.content.isspace())
        ]


def _flat_options(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a call, those in transformers' groups among them.

    Raises:
        ValueError: An argument that no processor knows.
    """
    options = {name: value for name, value in kwargs.items() if name not in _GROUPS}
    for group in _GROUPS:
        options |= kwargs.get(group) or {}
    if unknown := sorted(options.keys() - _CALL_OPTIONS):
        raise ValueError(f"FusionProcessor does not know the argument {', '.join(unknown)}")
    return options


def _check_counts(images: int, placeholders: int, where: str = "") -> None:
    if images != placeholders:
        raise ValueError(
            f"Image features and image tokens do not match: {images} images, {placeholders} image placeholders{where}"
        )


def _add_placeholders(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> None:
    known = tokenizer.added_tokens_encoder
    missing = [AddedToken(token, normalized=False, special=True) for token in tokens if token not in known]
    if missing:
        tokenizer.add_tokens(missing, special_tokens=True)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError("the tokenizer has neither a padding nor an end-of-sequence token: set pad_token")
        tokenizer.pad_token = tokenizer.eos_token
