"""A language model that transformers runs in worker processes, one per device.

Each row draws its own random numbers, so what it gets does not depend on which rows share its batch (but for the
rounding of batched arithmetic; a batch of one is exact). Knows no prompts. transformers and torch are imported in the
workers only.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fusionvl.data.extras import locate
from fusionvl.synth.json_constraint import JsonConstraint
from fusionvl.synth.recipe import LocalModel
from fusionvl.synth.text import RequestError, TextReply, TextRequest
from fusionvl.synth.workers import WorkError, Workers


class LocalLanguageModel:
    """A language model in worker processes.

    Args:
        settings: Which model, where and how.
    """

    def __init__(self, settings: LocalModel) -> None:
        self._workers: Workers[TextRequest, TextReply] = Workers(
            partial(load, settings), settings.devices, settings.batch_size
        )

    async def complete(self, request: TextRequest) -> TextReply:
        """Answer a request."""
        try:
            return await self._workers(request)
        except WorkError as error:
            raise RequestError(str(error)) from error

    def close(self) -> None:
        """End the workers."""
        self._workers.close()


def load(settings: LocalModel, device: str) -> Callable[[Sequence[TextRequest]], list[TextReply]]:
    """Load the model onto a device; what is returned answers batches of requests.

    Raises:
        ValueError: When the model is not found, cannot be loaded, or has no chat template.
        ModuleNotFoundError: When llguidance is not installed and answers shall keep to their schema.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = locate(settings.model)
    gguf = {} if settings.gguf_file is None else {"gguf_file": settings.gguf_file}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **gguf)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, settings.dtype), **gguf)
    except (OSError, ValueError) as error:
        raise ValueError(f"{settings.model} cannot be loaded as a language model: {error}") from error
    if not tokenizer.chat_template:
        raise ValueError(f"{settings.model} has no chat template: take a model that is tuned to follow instructions")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    ends = model.generation_config.eos_token_id or tokenizer.eos_token_id
    constraint = JsonConstraint(tokenizer, _listed(ends)) if settings.json_schema else None
    return partial(_answer, settings, model.to(device).eval(), tokenizer, constraint)


def _answer(
    settings: LocalModel,
    model: Any,
    tokenizer: Any,
    constraint: JsonConstraint | None,
    requests: Sequence[TextRequest],
) -> list[TextReply]:
    from transformers import GenerationConfig, LogitsProcessorList

    prompts = [
        tokenizer.apply_chat_template(
            [{"role": role, "content": text} for role, text in request.messages],
            add_generation_prompt=True,
            tokenize=False,
        )
        for request in requests
    ]
    # The template has written all special tokens already.
    batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    _check_length(model, batch["input_ids"].shape[1], settings.max_tokens)
    draws = LogitsProcessorList()
    if constraint is not None:
        draws.append(constraint.processor([request.schema for request in requests]))
    if settings.temperature > 0:
        draws.append(_draw_by_row([request.seed for request in requests], settings.temperature))
    config = GenerationConfig(
        max_new_tokens=settings.max_tokens,
        do_sample=False,  # the processor draws: the likeliest token after its noise is a sample
        eos_token_id=model.generation_config.eos_token_id or tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    output = model.generate(**batch, generation_config=config, logits_processor=draws)
    written = output[:, batch["input_ids"].shape[1] :]
    counts = batch["attention_mask"].sum(dim=1).tolist()
    return [_reply(settings, tokenizer, ids, count, config) for ids, count in zip(written, counts, strict=True)]


def _reply(settings: LocalModel, tokenizer: Any, ids: Any, read: int, config: Any) -> TextReply:
    ends = _listed(config.eos_token_id)
    tokens = ids.tolist()
    stops = [position for position, token in enumerate(tokens) if token in ends]
    written = tokens[: stops[0]] if stops else tokens
    return TextReply(
        text=tokenizer.decode(written, skip_special_tokens=True),
        model=settings.model if settings.gguf_file is None else f"{settings.model}/{settings.gguf_file}",
        finish_reason="stop" if stops else "length",
        input_tokens=read,
        output_tokens=len(written),
    )


def _listed(ends: int | list[int]) -> list[int]:
    return ends if isinstance(ends, list) else [ends]


def _check_length(model: Any, prompt: int, answer: int) -> None:
    """Beyond its positions a model writes nonsense, and says nothing about it."""
    most = getattr(model.config, "max_position_embeddings", None)
    if most is not None and prompt + answer > most:
        raise ValueError(f"{prompt} tokens of prompt and {answer} of answer are more than the model's {most}")


def _draw_by_row(seeds: Sequence[int], temperature: float) -> Callable[[Any, Any], Any]:
    """Sampling as noise on the logits (Gumbel's trick), each row's from a generator of its own."""
    import torch

    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(_ids: Any, scores: Any) -> Any:
        times = torch.stack([torch.empty(scores.shape[-1]).exponential_(generator=one) for one in generators])
        noise = -times.clamp(min=torch.finfo(times.dtype).tiny).log()
        return scores.float() / temperature + noise.to(scores.device)

    return draw
