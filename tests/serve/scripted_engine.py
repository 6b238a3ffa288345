"""An engine that says what it is asked to say: `repeat WORD N SECONDS`, `refuse`, `fail`, ...; for the server's tests.

It has the shape of `FusionEngine` as far as the server uses it.
"""

import threading
import time

from fusionvl.engine.events import Finish, Piece, TokenLogprob


class ScriptedEngine:
    """Obeys the last user message.

    Attributes:
        log: What it did, in lines.
        released: Lets `hold` go on.
    """

    def __init__(self):
        self.log = []
        self.released = threading.Event()

    def events(self, messages, settings):
        text = " ".join(part["text"] for part in messages[-1]["content"] if part["type"] == "text")
        if text.startswith("refuse"):
            raise ValueError("the conversation cannot be used: it says refuse")
        return self._generate(text, messages, settings)

    def _generate(self, text, messages, settings):
        self.log.append(f"begin {text}")
        told = 0
        try:
            for index in range(settings.n):
                reason = "stop"
                of_this = 0
                for piece in self._pieces(text, messages, settings):
                    if of_this == settings.max_new_tokens:
                        reason = "length"
                        break
                    of_this, told = of_this + 1, told + 1
                    yield Piece(index, piece, _logprobs(piece, settings.top_logprobs))
                yield Finish(index, reason, 7, of_this)
            self.log.append(f"end after {told} pieces")
        except GeneratorExit:
            self.log.append(f"cancelled after {told} pieces")
            raise

    def _pieces(self, text, messages, settings):
        command, _, rest = text.partition(" ")
        match command:
            case "repeat":
                word, count, seconds = rest.split()
                for _ in range(int(count)):
                    yield f"{word} "
                    time.sleep(float(seconds))
            case "hold":
                assert self.released.wait(60)
                yield "held "
            case "fail":
                yield "half "
                raise RuntimeError("secret details of /the/servers/folder")
            case "stumble":
                yield "half "
                raise ValueError("secret details of /the/servers/folder")
            case "settings":
                yield repr(settings)
            case "messages":
                yield repr([
                    (message["role"], [part.get("text") or part["image"].size for part in message["content"]])
                    for message in messages
                ])  # fmt: skip
            case _:
                yield from (f"{word} " for word in (command, *rest.split()))


def _logprobs(piece, top):
    if top is None:
        return ()
    return (TokenLogprob(piece, piece.encode(), -0.5, tuple((f"{piece}?", b"?", -2.0) for _ in range(top))),)
