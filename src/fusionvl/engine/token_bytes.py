"""The bytes that single tokens stand for; a character may be spread over several tokens.

Knows the two ways in which today's tokenizers write bytes: byte-level alphabets (GPT-2, Llama-3, Qwen) and
SentencePiece with byte fallback (Llama-2, Phi-3, Mistral). Knows no model.
"""

import re

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

FALLBACK_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece writes a space


class TokenBytes:
    """Bytes of a tokenizer's tokens."""

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
