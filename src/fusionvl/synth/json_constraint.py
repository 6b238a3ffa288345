"""Keeps a local model to a JSON schema: at every token it may only choose what a fitting answer can go on with.

llguidance knows which tokens those are; here its masks meet the logits of transformers. Knows no prompts and no
schemas of its own. Needs llguidance.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fusionvl.data.extras import import_extra

# As the examples in the prompts are written. Free white space would let a weak model write nothing but that.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class JsonConstraint:
    """Makes logits processors for one tokenizer.

    Args:
        tokenizer: A fast tokenizer of transformers.
        ends: The tokens that end an answer.

    Raises:
        ModuleNotFoundError: When llguidance is not installed; says how to install it.
        ValueError: When llguidance cannot read the tokenizer.
    """

    def __init__(self, tokenizer: Any, ends: Sequence[int]) -> None:
        needed_for = "Keeping a local model to JSON (json_schema: true)"
        self._library: Any = import_extra("llguidance", extra="synth", needed_for=needed_for)
        bridge: Any = import_extra("llguidance.hf", extra="synth", needed_for=needed_for)
        self._ends = list(ends)
        try:
            self._tokenizer = bridge.from_tokenizer(tokenizer, eos_token=list(ends))
        except ValueError as error:
            raise ValueError(
                f"The tokenizer of this model cannot be kept to JSON ({error}): set json_schema: false"
            ) from error

    def processor(self, schemas: Sequence[dict[str, Any] | None]) -> Callable[[Any, Any], Any]:
        """A logits processor for one call of `generate`.

        Args:
            schemas: The schema of each row's answer; an empty one allows any JSON, None any text.

        Returns:
            Takes token ids of shape (rows, length) and logits of shape (rows, vocabulary), and returns the logits with
            minus infinity where a token does not fit. It raises ValueError when a schema cannot be followed.
        """
        return _Masks([None if schema is None else self._matcher(schema) for schema in schemas], self._ends)

    def _matcher(self, schema: dict[str, Any]) -> Any:
        compiler = self._library.LLMatcher
        return compiler(self._tokenizer, compiler.grammar_from_json_schema(json.dumps(schema), overrides=_SPACING))


class _Masks:
    """The processor: follows what each row has written so far."""

    def __init__(self, matchers: Sequence[Any], ends: list[int]) -> None:
        self._matchers = matchers
        self._ends = ends
        self._has_begun = False

    def __call__(self, ids: Any, scores: Any) -> Any:
        import torch

        fits = np.zeros(scores.shape, dtype=np.uint8)
        for row, matcher in enumerate(self._matchers):
            if matcher is None:
                fits[row] = 1
                continue
            if self._has_begun and not matcher.is_stopped():
                matcher.consume_token(int(ids[row, -1]))
            if matcher.is_stopped() and not matcher.is_error():
                fits[row, self._ends] = 1  # the answer is whole
                continue
            bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
            if matcher.is_error():
                raise ValueError(f"the answer cannot be kept to its schema: {matcher.get_error()}")
            width = min(len(bits), fits.shape[1])  # a model may have more logits than its tokenizer has tokens
            fits[row, :width] = bits[:width]
        self._has_begun = True
        return scores.masked_fill(torch.from_numpy(fits == 0).to(scores.device), float("-inf"))
