"""From tokens to the text that may be told already: whole characters, no beginning of a stop text.

The texts that are told, joined, are what decoding all tokens at once gives, without the white space around it. Knows
the bytes of tokens; knows no model.
"""

import codecs
from collections.abc import Sequence

from fusionvl.engine.token_bytes import TokenBytes


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
