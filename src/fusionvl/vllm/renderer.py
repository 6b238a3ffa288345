"""Conversations -> prompts, as our own processor makes them: vLLM's renderer and tokenizer for FUSION.

The processor renders, tokenizes and finds the guide in one go, so that what users write can forge neither control
tokens nor placeholders, and prompts are those that the model was trained with. Knows vLLM's requests; knows no engine.
"""

from collections.abc import Mapping
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.multimodal.media import MediaWithBytes
from vllm.renderers.base import BaseRenderer
from vllm.renderers.chat_utils import parse_chat_messages, parse_chat_messages_async
from vllm.renderers.params import ChatParams, TokenizeParams
from vllm.tokenizers.hf import get_cached_tokenizer
from vllm.utils.async_utils import make_async

from fusionvl.processing.processing import FusionProcessor
from fusionvl.processing.tokenizer_files import load_tokenizer
from fusionvl.vllm.processor import INPUTS, FusionProcessingInfo, Inputs

_FORMAT = "openai"  # content stays a list of parts


class FusionTokenizer:
    """Loads the tokenizer of our folders and of released ones, whatever files they have."""

    @classmethod
    def from_pretrained(cls, name: str, *_args: Any, revision: str | None = None, **_kwargs: Any) -> Any:
        """The tokenizer of a hub name or folder, as vLLM wants one."""
        return get_cached_tokenizer(load_tokenizer(name, {"revision": revision} if revision else {}))


class FusionRenderer(BaseRenderer[Any]):
    """Makes prompts of conversations, and of texts that the processor's chat template rendered elsewhere."""

    def __init__(self, config: Any, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        info = self.get_mm_processor().info
        assert isinstance(info, FusionProcessingInfo)
        self._processor: FusionProcessor = info.get_hf_processor()
        self._prompt_of_async = make_async(self._prompt_of, executor=self._executor)

    def get_eos_token_id(self) -> int | None:
        """The end of a turn ends every answer, beside what the generation config lists."""
        return self._processor.end_of_turn_id or super().get_eos_token_id()

    def render_messages(self, messages: list[Any], params: ChatParams) -> tuple[list[Any], Any]:
        """A conversation and its prompt.

        Raises:
            ValueError: When it is none that FUSION can answer, or asks for what FUSION does not have.
        """
        conversation, data, _ = parse_chat_messages(messages, self.model_config, _FORMAT, params.media_io_kwargs)
        return conversation, self._prompt_of(conversation, data, params)

    async def render_messages_async(self, messages: list[Any], params: ChatParams) -> tuple[list[Any], Any]:
        """As `render_messages`; pictures are fetched meanwhile."""
        conversation, data, _ = await parse_chat_messages_async(
            messages, self.model_config, _FORMAT, params.media_io_kwargs
        )
        return conversation, await self._prompt_of_async(conversation, data, params)

    def _prompt_of(self, conversation: list[Any], data: Mapping[str, Any] | None, params: ChatParams) -> Any:
        given = params.chat_template_kwargs  # vLLM adds to it what any template may want; ours wants little
        if given.get("tools"):
            raise VLLMValidationError("FUSION calls no tools: leave them out", parameter="tools")
        options = {
            "chat_template": params.chat_template,
            "add_generation_prompt": given.get("add_generation_prompt", True),
            "continue_final_message": given.get("continue_final_message", False),
        }
        latents = given if given.get("num_latents") is not None else params.mm_processor_kwargs
        messages = _with_picture(conversation, data)
        inputs = self._processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, **options, **_num_latents(latents)
        )
        return {"prompt": self._processor.apply_chat_template(messages, **options), **_prompt(inputs, data)}

    def _tokenize_prompt(self, prompt: Any, params: TokenizeParams) -> Any:
        """A text as it is; its control tokens are its writer's own."""
        data = prompt.get("multi_modal_data")
        latents = _num_latents(prompt.get("mm_processor_kwargs"))
        inputs = self._processor(
            images=_pictures(data), text=prompt["prompt"], add_special_tokens=params.add_special_tokens, **latents
        )
        return {**prompt, **_prompt(inputs, data)}

    def _process_tokens(self, prompt: Any, *, skip_mm_cache: bool = False) -> Any:
        return super()._process_tokens(_for_engine(prompt), skip_mm_cache=skip_mm_cache)

    async def _process_tokens_async(self, prompt: Any, *, skip_mm_cache: bool = False) -> Any:
        return await super()._process_tokens_async(_for_engine(prompt), skip_mm_cache=skip_mm_cache)


def _prompt(inputs: Any, data: Mapping[str, Any] | None) -> dict[str, Any]:
    """Token ids for vLLM to count and check, and behind them what the processor made."""
    made = Inputs.of(inputs)
    pictured = {"multi_modal_data": data, INPUTS: made} if made.pixel_values is not None else {}
    return {"prompt_token_ids": list(made.token_ids), **pictured}


def _for_engine(prompt: Any) -> Any:
    """The prompt, with what the processor made of it as an argument of the multi-modal processor.

    Raises:
        ValueError: For a picture beside bare token ids, or a prompt that was cut or padded meanwhile.
    """
    prompt = dict(prompt)
    inputs: Inputs | None = prompt.pop(INPUTS, None)
    if inputs is None:
        if prompt.get("multi_modal_data"):
            raise VLLMValidationError(
                "Token ids do not tell which questions guide the encoder: send the picture with messages, or with the "
                "text that the chat template makes of them",
                parameter="prompt_token_ids",
            )
        return prompt
    if len(prompt["prompt_token_ids"]) != len(inputs.token_ids):
        raise VLLMValidationError(
            f"The prompt has {len(inputs.token_ids)} tokens, and cannot be cut or padded to "
            f"{len(prompt['prompt_token_ids'])}: leave out truncate_prompt_tokens",
            parameter="truncate_prompt_tokens",
        )
    return {**prompt, "mm_processor_kwargs": {INPUTS: inputs}}


def _with_picture(conversation: list[Any], data: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Messages as our processor takes them: the picture in its part, the developer a system."""
    pictures = iter(_pictures(data))
    messages = []
    for message in conversation:
        role = "system" if message["role"] == "developer" else message["role"]
        content = message.get("content") or ""
        if not isinstance(content, str):
            content = [{**part, "image": next(pictures)} if part["type"] == "image" else part for part in content]
        messages.append({"role": role, "content": content})
    return messages


def _pictures(data: Mapping[str, Any] | None) -> list[Any]:
    """Encoded pictures where there are some, so that they are decoded as everywhere in this package."""
    given = (data or {}).get("image")
    pictures = given if isinstance(given, list) else [] if given is None else [given]
    if any(picture is None for picture in pictures):
        raise VLLMValidationError("Send the picture itself: none is kept under a name", parameter="image")
    return [picture.original_bytes if isinstance(picture, MediaWithBytes) else picture for picture in pictures]


def _num_latents(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The one argument that our processor takes of a request.

    Raises:
        VLLMValidationError: When it is no number.
    """
    number = (options or {}).get("num_latents")
    if number is None:
        return {}
    if not isinstance(number, int) or isinstance(number, bool):
        raise VLLMValidationError(f"num_latents is a whole number, not {number!r}", parameter="num_latents")
    return {"num_latents": number}
