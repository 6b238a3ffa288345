"""Models on this machine behind `complete(messages)`: any image-text model of transformers, a FUSION too, or any LLM.

Reached through the Auto classes. Knows no rows and no filter.
"""

import asyncio
import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from fusionvl.data.extras import locate
from fusionvl.synth.filters.asking import Message, ModelError


class LocalModel:
    """Answers requests one at a time, greedily; on the GPU if there is one.

    Args:
        model: A generating model of transformers.
        processor: Its processor or tokenizer, with a chat template.
        max_new_tokens: Of an answer.
    """

    def __init__(self, model: Any, processor: Any, max_new_tokens: int = 32) -> None:
        import torch

        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self._processor = processor
        self._max_new_tokens = max_new_tokens
        self._free = asyncio.Lock()

    async def complete(self, messages: Sequence[Message]) -> str:
        """Answers, in a thread of its own so that others may go on.

        Raises:
            ModelError: If the request cannot be put to this model, say because an image in it is broken.
        """
        async with self._free:
            return await asyncio.to_thread(self._answer, messages)

    def _answer(self, messages: Sequence[Message]) -> str:
        import torch

        try:
            inputs = self._processor.apply_chat_template(
                [_opened(message) for message in messages],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            ).to(self._model.device)
        except (ValueError, OSError) as error:
            raise ModelError(str(error)) from error
        with torch.inference_mode():
            tokens = self._model.generate(**inputs, max_new_tokens=self._max_new_tokens, do_sample=False)
        answer: str = self._processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return answer.strip()


def local_judge(name: str) -> LocalModel:
    """Loads a model that sees.

    Args:
        name: Hub name or folder.

    Raises:
        OSError: If there is no such model.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    import fusionvl.auto  # noqa: F401 - so that it may be a FUSION

    return LocalModel(AutoModelForImageTextToText.from_pretrained(name), AutoProcessor.from_pretrained(name))


def local_text(name: str) -> LocalModel:
    """Loads a language model.

    Args:
        name: Hub name, folder, or a GGUF file; `package:NAME/FILE.gguf` for one of an installed Python package.

    Raises:
        OSError: If there is no such model.
        ValueError: If there is no such package.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, gguf = locate(name), {}
    if source.endswith(".gguf"):
        source, _, file = source.rpartition("/")
        gguf = {"gguf_file": file}
    return LocalModel(
        AutoModelForCausalLM.from_pretrained(source, **gguf), AutoTokenizer.from_pretrained(source, **gguf)
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
