"""lmms-eval's generation settings (`generation_kwargs` of a task) as transformers' and the engine's.

Knows the names in use there. Knows no model.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

DEFAULT_MAX_NEW_TOKENS = 1024  # TextVQA and others name no bound
# lmms-eval writes this into every task that names no stop text. It would cut long answers at their first paragraph,
# so it does not count, as in lmms-eval's own chat models.
_FILLED_IN = "\n\n"
_PASSED_ON = ("num_beams", "repetition_penalty")
_FOR_SAMPLING = ("temperature", "top_p", "top_k")
_ELSEWHERE = {"max_new_tokens", "until", "do_sample", "image_aspect_ratio"}  # the last one is LLaVA's


@dataclass(frozen=True)
class GenerationSettings:
    """How answers are generated.

    Attributes:
        max_new_tokens: Bound on each answer.
        until: Texts that end an answer; they are not part of it.
        settings: Of transformers' `generate`; greedy unless the task asks for sampling.
    """

    max_new_tokens: int
    until: tuple[str, ...]
    settings: Mapping[str, Any]

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> "GenerationSettings":
        """Read a task's settings; a name that means nothing here is warned of.

        Raises:
            ValueError: When `max_new_tokens` is no whole number of at least 1.
        """
        unknown = given.keys() - {*_PASSED_ON, *_FOR_SAMPLING, *_ELSEWHERE}
        if unknown:
            logger.warning("Generation settings without a meaning for fusionvl: %s", ", ".join(sorted(unknown)))
        max_new_tokens = given.get("max_new_tokens", DEFAULT_MAX_NEW_TOKENS)
        if int(max_new_tokens) != max_new_tokens or max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be a whole number of at least 1, not {max_new_tokens!r}")
        stops = given.get("until") or ()
        stops = (stops,) if isinstance(stops, str) else stops
        # As in transformers, a temperature alone does not override do_sample=False (MM-Vet has both).
        samples = bool(given.get("do_sample", (given.get("temperature") or 0) > 0))
        names = (*_PASSED_ON, *_FOR_SAMPLING) if samples else _PASSED_ON
        return cls(
            max_new_tokens=int(max_new_tokens),
            until=tuple(stop for stop in stops if stop and stop != _FILLED_IN),
            settings={"do_sample": samples} | {name: given[name] for name in names if given.get(name) is not None},
        )

    def for_generate(self, tokenizer: Any) -> dict[str, Any]:
        """Settings of `generate`; it stops at a stop text but keeps it (see `cut`)."""
        stops = {"stop_strings": list(self.until), "tokenizer": tokenizer} if self.until else {}
        return {**self.settings, **stops}

    def cut(self, answer: str) -> str:
        """The answer up to the first stop text."""
        ends = [answer.find(stop) for stop in self.until if stop in answer]
        return answer[: min(ends)].strip() if ends else answer
