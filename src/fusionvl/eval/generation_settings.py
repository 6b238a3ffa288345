"""lmms-eval's generation settings (`generation_kwargs` of a task) as the engine's. Knows no model."""

import logging
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)

DEFAULT_MAX_NEW_TOKENS = 1024  # TextVQA and others name no bound
# lmms-eval writes this into every task that names no stop text. It would cut long answers at their first paragraph,
# so it does not count, as in lmms-eval's own chat models.
_FILLED_IN = "\n\n"
_PASSED_ON = ("num_beams", "repetition_penalty")
_FOR_SAMPLING = ("temperature", "top_p", "top_k")
_ELSEWHERE = {"max_new_tokens", "until", "do_sample", "image_aspect_ratio"}  # the last one is LLaVA's


def engine_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """What `FusionEngine.answer` takes: greedy unless the task asks for sampling, and without stop texts.

    Args:
        given: A task's settings; of a name that means nothing here a warning is logged.

    Raises:
        ValueError: When `max_new_tokens` is no whole number of at least 1.
    """
    unknown = given.keys() - {*_PASSED_ON, *_FOR_SAMPLING, *_ELSEWHERE}
    if unknown:
        logger.warning("Generation settings without a meaning for fusionvl: %s", ", ".join(sorted(unknown)))
    max_new_tokens = given.get("max_new_tokens", DEFAULT_MAX_NEW_TOKENS)
    if int(max_new_tokens) != max_new_tokens or max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be a whole number of at least 1, not {max_new_tokens!r}")
    # As in transformers, a temperature alone does not override do_sample=False (MM-Vet has both).
    samples = bool(given.get("do_sample", (given.get("temperature") or 0) > 0))
    names = (*_PASSED_ON, *_FOR_SAMPLING) if samples else _PASSED_ON
    passed_on = {name: given[name] for name in names if given.get(name) is not None}
    return {"max_new_tokens": int(max_new_tokens), "do_sample": samples, **passed_on}


def stop_texts(given: Mapping[str, Any]) -> list[str]:
    """Texts that end an answer; they are no part of it."""
    stops = given.get("until") or ()
    return [stop for stop in ((stops,) if isinstance(stops, str) else stops) if stop and stop != _FILLED_IN]


def cut(answer: str, stops: list[str]) -> str:
    """The answer up to the first stop text."""
    ends = [answer.find(stop) for stop in stops if stop in answer]
    return answer[: min(ends)].strip() if ends else answer
