"""From tokens to the text that may be told already: whole characters, no beginning of a stop text.

The texts that are told, joined, are what decoding all tokens at once gives, without the white space around it. Knows
the two ways in which today's tokenizers write bytes: byte-level alphabets (GPT-2, Llama-3, Qwen) and SentencePiece
with byte fallback (Llama-2, Phi-3, Mistral). Knows no model.
"""

import codecs
import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

FALLBACK_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece writes a space


class TokenBytes:
    """The bytes that single tokens of a tokenizer stand for; a character may be spread over several tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._added = {index: str(token).encode() for index, token in tokenizer.added_tokens_decoder.items()}
        self._special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        is_byte_level = b"ByteLevel" in tokenizer.backend_tokenizer.decoder.__getstate__()
        self._alphabet = {letter: byte for byte, letter in bytes_to_unicode().items()} if is_byte_level else {}

    def of(self, token: int) -> bytes:
        """The bytes of a token; none for an id that the tokenizer does not know."""
        if token in self._added:
            return self._added[token]
        text = self._tokenizer.convert_ids_to_tokens(token)
        if text is None:
            return b""
        if self._alphabet and all(letter in self._alphabet for letter in text):
            return bytes(self._alphabet[letter] for letter in text)
        if match := FALLBACK_BYTE.fullmatch(text):
            return bytes.fromhex(match[1])
        return text.replace(SPACE, " ").encode()

    def is_special(self, token: int) -> bool:
        """Whether the token is none of the answer's text."""
        return token in self._special


class Emission:
    """The text of one answer, piece by piece.

    Args:
        token_bytes: Of the model's tokenizer.
        stop: Texts that end it.

    Attributes:
        is_stopped: Whether a stop text came.
    """

    def __init__(self, token_bytes: TokenBytes, stop: Sequence[str]) -> None:
        self.is_stopped = False
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = stop
        self._held = ""
        self._has_begun = False

    def push(self, token: int) -> str:
        """The text that may be told after a further token."""
        content = b"" if self._token_bytes.is_special(token) else self._token_bytes.of(token)
        return self._release(self._decoder.decode(content), is_last=False)

    def finish(self) -> str:
        """The text that was held back, when no further token comes."""
        return self._release(self._decoder.decode(b"", final=True), is_last=True)

    def _release(self, text: str, is_last: bool) -> str:
        if self.is_stopped:
            return ""
        self._held += text
        places = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if places:
            self.is_stopped, is_last = True, True
            self._held = self._held[: min(places)]
        ready = self._held[: len(self._held) if is_last else self._first_open_place()].rstrip()
        self._held = self._held[len(ready) :]
        if not self._has_begun:
            ready = ready.lstrip()
            self._has_begun = bool(ready)
        return ready

    def _first_open_place(self) -> int:
        """Where a stop text may begin that is not complete yet."""
        longest = max((len(stop) for stop in self._stop), default=1)
        for place in range(max(0, len(self._held) - longest + 1), len(self._held)):
            if any(stop.startswith(self._held[place:]) for stop in self._stop):
                return place
        return len(self._held)
