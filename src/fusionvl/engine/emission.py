"""From tokens to the text that may be told already: whole characters, no beginning of a stop text.

The texts that are told, joined, are what decoding all tokens at once gives, without the white space around it. Knows a
tokenizer; knows no model.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from fusionvl.engine.token_bytes import TokenBytes

BROKEN = "\N{REPLACEMENT CHARACTER}"  # what decoding makes of a character's first bytes
WINDOW = 16  # tokens decoded again with each new one; decoding all of them would cost more with every token


class Detokenizer:
    """Decodes one answer token by token.

    Args:
        tokenizer: The model's.
        token_bytes: Of the same tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, token_bytes: TokenBytes) -> None:
        self._tokenizer = tokenizer
        self._token_bytes = token_bytes
        self._tokens: list[int] = []
        self._start = 0  # of the window
        self._border = 0  # where the text was whole the last time
        self._told_of_window = 0

    def push(self, token: int) -> str:
        """The text that a further token settles; empty while a character waits for its other bytes."""
        if self._token_bytes.is_special(token):
            return ""
        self._tokens.append(token)
        if self._token_bytes.is_fallback_byte(token):
            return ""  # a later byte may still break the whole run of them
        text = self._decode(self._tokens[self._start :])
        settled = text.rstrip(BROKEN)
        new = settled[self._told_of_window :]
        self._told_of_window = max(self._told_of_window, len(settled))
        if settled == text:
            self._move_window()
        return new

    def finish(self) -> str:
        """The text that was still open."""
        return self._decode(self._tokens[self._start :])[self._told_of_window :]

    def _move_window(self) -> None:
        """Leave the oldest tokens behind, when all text is whole; some stay, for decoders that look at a first one."""
        if len(self._tokens) - self._start > WINDOW:
            self._start = self._border
            self._told_of_window = len(self._decode(self._tokens[self._start :]))
        self._border = len(self._tokens)

    def _decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True)


class Emission:
    """The text of one answer, piece by piece.

    Args:
        detokenizer: Of this answer.
        stop: Texts that end it.

    Attributes:
        is_stopped: Whether a stop text came.
    """

    def __init__(self, detokenizer: Detokenizer, stop: Sequence[str]) -> None:
        self.is_stopped = False
        self._detokenizer = detokenizer
        self._stop = stop
        self._held = ""
        self._has_begun = False

    def push(self, token: int) -> str:
        """The text that may be told after a further token."""
        return self._release(self._detokenizer.push(token), is_last=False)

    def finish(self) -> str:
        """The text that was held back, when no further token comes."""
        return self._release(self._detokenizer.finish(), is_last=True)

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
