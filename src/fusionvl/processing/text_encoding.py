"""Text -> token ids, as one tokenizer of a language model reads it; piece by piece, where a row needs it so.

Knows how pieces of a text join and which control tokens a user wrote. Does not know conversations, images or tensors.
"""

import re
import threading
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from fusionvl.processing.chat_format import MARK_END, MARK_START, MARKED

WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece writes a space

# Encoding user text as plain text switches a setting of the shared Rust tokenizer.
_TOKENIZER_LOCK = threading.Lock()
_MARK_SPLIT = re.compile(f"{MARKED.pattern}|[{MARK_START}{MARK_END}]", re.DOTALL)


@dataclass(frozen=True)
class TextEncoder:
    """Encodes text for one model.

    Attributes:
        tokenizer: Of the language model, a fast one.
        leading_space: Whether every text begins with a space of its own, even before a control token, and a typed
            word start counts as a space. So do the slow SentencePiece tokenizers that released models were trained
            with; fast ones leave that space out before a control token.
    """

    tokenizer: PreTrainedTokenizerBase
    leading_space: bool = False

    @cached_property
    def prefix(self) -> list[int]:
        """What the tokenizer puts in front of every text: BOS, or nothing."""
        probe = "a"
        with _TOKENIZER_LOCK:
            bare = self.tokenizer(probe, add_special_tokens=False)["input_ids"]
            full = self.tokenizer(probe, add_special_tokens=True)["input_ids"]
        for start in range(len(full) - len(bare) + 1):
            if full[start : start + len(bare)] == bare:
                return list(full[:start])
        raise ValueError(f"cannot tell the special tokens of the tokenizer from its text: {full} with, {bare} without")

    def encode(self, text: str, *, continued: bool = False) -> list[int]:
        """Ids of a text, or of a piece that continues one; control tokens marked as user text become ordinary text."""
        ids: list[int] = []
        position = 0
        for match in _MARK_SPLIT.finditer(text):
            ids += self._encode(text[position : match.start()], continued or position > 0)
            ids += self._encode(match[1] or "", continued or match.start() > 0, as_text=True)
            position = match.end()
        return ids + self._encode(text[position:], continued or position > 0)

    def encode_as_text(self, text: str) -> list[int]:
        """Ids of a text in which special tokens are ordinary characters."""
        if not text:
            return []
        with _TOKENIZER_LOCK:
            return self._encode_locked(text, continued=False, as_text=True)

    def _encode(self, text: str, continued: bool, as_text: bool = False) -> list[int]:
        """Ids of a piece without marks.

        Args:
            text: The piece.
            continued: Whether it continues a text.
            as_text: Whether it is a control token that a user wrote, to be encoded like ordinary text.
        """
        if not text:
            return []
        with _TOKENIZER_LOCK:
            ids = self._encode_locked(text, continued, as_text)
            if as_text and self.tokenizer.convert_tokens_to_ids(text) in ids:
                # An added token that is not special is matched in plain text, too, but not in two parts.
                ids = self._encode_locked(text[:1], continued, as_text)
                ids += self._encode_locked(text[1:], True, as_text)
        return ids

    def _encode_locked(self, text: str, continued: bool, as_text: bool) -> list[int]:
        if self.leading_space:
            text = text.replace(WORD_START, " ")
            if not continued:
                text, continued = " " + text, True
        if continued:
            # SentencePiece tokenizers put a space in front of a text; behind a line break they do not.
            line_break = self._plain_ids("\n", as_text=False)
            ids = self._plain_ids("\n" + text, as_text)
            if ids[: len(line_break)] == line_break:
                return ids[len(line_break) :]
        return self._plain_ids(text, as_text)

    def _plain_ids(self, text: str, as_text: bool) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=as_text)["input_ids"])
