"""Any image-text-to-text model of transformers that answers the questions of a benchmark, for comparison.

Knows transformers' Auto classes and chat templates; knows no benchmark, no score and no model in particular.
"""

from collections.abc import Sequence
from typing import Any

import torch

from fusionvl.engine.devices import choose_device, choose_dtype
from fusionvl.engine.engine import Answer, conversation
from fusionvl.engine.loading import in_one_sentence
from fusionvl.eval.model_fingerprint import model_fingerprint
from fusionvl.eval.task import TaskQuestion
from fusionvl.processing import load_image


class TransformersAnswerer:
    """Any model that transformers loads as image-text-to-text, through its own processor and chat template.

    Args:
        model: In evaluation mode.
        processor: The model's processor, with a chat template.
        name: For people.
        weights: See `model_fingerprint`.

    Raises:
        ValueError: When the processor has no chat template.
    """

    def __init__(self, model: Any, processor: Any, name: str, weights: str) -> None:
        if getattr(processor, "chat_template", None) is None:
            raise ValueError(f"{name} has no chat template: how to ask it is not known")
        self.name = name
        self._model = model
        self._processor = processor
        self._weights = weights

    @classmethod
    def from_pretrained(cls, name: str, *, dtype: str = "auto", device: str = "auto") -> "TransformersAnswerer":
        """Load a model and its processor.

        Args:
            name: Hub name or folder.
            dtype: As for `FusionEngine.from_pretrained`.
            device: A torch device, or `auto`: a GPU when there is one.

        Raises:
            ValueError: When it cannot be loaded; with the reason.
        """
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

        import fusionvl.auto  # noqa: F401 - a FUSION is one of transformers' models, too

        place = choose_device(device)
        with in_one_sentence(name):
            own = AutoConfig.from_pretrained(name).dtype or torch.float32
            model = AutoModelForImageTextToText.from_pretrained(name, dtype=choose_dtype(dtype, own, place))
            processor = AutoProcessor.from_pretrained(name)
        return cls(model.to(place).eval(), processor, name, model_fingerprint(name))

    def settings(self) -> dict[str, Any]:
        """Weights, dtype, class."""
        return {
            "through": f"transformers, {type(self._model).__name__}",
            "weights": self._weights,
            "dtype": str(self._model.dtype).removeprefix("torch."),
        }

    def answer(self, questions: Sequence[TaskQuestion], max_new_tokens: int) -> list[Answer]:
        """Answer a batch; questions without an image are a batch of their own, as not every processor mixes them.

        Raises:
            ValueError: When an image cannot be used.
        """
        replies: dict[str, Answer] = {}
        for has_image in (True, False):
            batch = [question for question in questions if (question.image is not None) == has_image]
            if batch:
                answered = self._generate(batch, max_new_tokens)
                replies |= {question.id: reply for question, reply in zip(batch, answered, strict=True)}
        return [replies[question.id] for question in questions]

    def image_reuse(self) -> tuple[int, int]:
        """Nothing is reused: every question encodes its image."""
        return 0, 0

    def _generate(self, questions: Sequence[TaskQuestion], max_new_tokens: int) -> list[Answer]:
        inputs = self._processor.apply_chat_template(
            [_loaded(question) for question in questions],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left"},
        )
        inputs = inputs.to(self._model.device, self._model.dtype)  # of whole numbers, only the device
        prompt_length = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            sequences = self._model.generate(
                **inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, **self._no_sampling()
            )
        prompt_tokens = inputs["attention_mask"].sum(1).tolist()
        answers = sequences[:, prompt_length:].tolist()
        return [self._to_answer(*row) for row in zip(answers, prompt_tokens, strict=True)]

    def _no_sampling(self) -> dict[str, Any]:
        """Unsets what only sampling uses, or `generate` warns of it; pads with what the tokenizer pads with."""
        tokenizer = self._processor.tokenizer
        padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        return {"temperature": None, "top_p": None, "top_k": None, "pad_token_id": padding}

    def _to_answer(self, tokens: list[int], prompt_tokens: int) -> Answer:
        ends = self._model.generation_config.eos_token_id
        end_ids = {ends} if isinstance(ends, int) else set(ends or ())
        stopped = next((index for index, token in enumerate(tokens) if token in end_ids), None)
        return Answer(
            text=self._processor.tokenizer.decode(tokens[:stopped], skip_special_tokens=True).strip(),
            finish_reason="length" if stopped is None else "stop",
            prompt_tokens=prompt_tokens,
            answer_tokens=len(tokens) if stopped is None else stopped + 1,
        )


def _loaded(question: TaskQuestion) -> list[dict[str, Any]]:
    """The question as messages, its image opened: each processor opens files in a way of its own."""
    image = None if question.image is None else load_image(question.image)
    return conversation(image, question.prompt)
