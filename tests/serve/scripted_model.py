"""A model that says what it is asked to say: `repeat WORD N`, `crash`, `hang`, ...; for the server's own tests.

It stands where continuous batching does, in a worker process, and needs no torch.
"""

import os
import signal
import threading
import time
from pathlib import Path

from fusionvl.engine.generation_request import Failure, Finish, Piece, TokenLogprob
from fusionvl.processing.image_loading import load_image
from fusionvl.serve.messages import Beat
from fusionvl.serve.worker import LineFull, LoadedModel


class Ticket:
    def __init__(self):
        self.is_cancelled = False

    def cancel(self):
        self.is_cancelled = True


class ScriptedBatching:
    """Obeys the last user message; writes down what it did in a file named by FUSIONVL_SCRIPT_LOG."""

    def __init__(self):
        self.running = 0
        self.threads = []

    def submit(self, messages, settings, listener, deadline):
        text = " ".join(part["text"] for part in messages[-1]["content"] if part["type"] == "text")
        if text.startswith("refuse"):
            raise ValueError("the conversation cannot be used: it says refuse")
        if text.startswith("full"):
            raise LineFull("the line is full")
        if text.startswith("closed"):
            raise RuntimeError("the batching is closed")
        ticket = Ticket()
        thread = threading.Thread(target=self.answer, args=(ticket, text, messages, settings, listener))
        self.threads.append(thread)
        thread.start()
        return ticket

    def answer(self, ticket, text, messages, settings, listener):
        self.running += 1
        log(f"process {os.getpid()} answers {text}")
        log(f"begin {text}")
        command, _, rest = text.partition(" ")
        start = time.monotonic()
        told, reason = 0, "stop"
        for piece in self.pieces(command, rest, messages, settings):
            if ticket.is_cancelled:
                log(f"cancelled after {told} pieces")
                reason = "cancelled"
                break
            if told >= settings.max_new_tokens:
                reason = "length"
                break
            told += 1
            logprobs = ()
            if settings.top_logprobs is not None:
                others = tuple((f"{piece}?", b"?", -2.0) for _ in range(settings.top_logprobs))
                logprobs = (TokenLogprob(piece, piece.encode(), -0.5, others),)
            listener(Piece(piece, logprobs))
        self.running -= 1
        seconds = time.monotonic() - start
        if command == "fail":
            listener(Failure("The model stumbled", is_users=False))
        else:
            listener(Finish(reason, 7, told, False, 0.0, seconds, seconds))
        log(f"end {reason}")

    def pieces(self, command, rest, messages, settings):
        if command == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if command == "repeat":
            word, count, seconds = rest.split()
            for _ in range(int(count)):
                yield f"{word} "
                time.sleep(float(seconds))
        elif command == "settings":
            yield repr(settings)
        elif command == "messages":
            yield repr([
                (message["role"], [part.get("text") or load_image(part["image"]).size for part in message["content"]])
                for message in messages
            ])  # fmt: skip
        elif command == "fail":
            yield "half "
        else:
            yield from (f"{word} " for word in (command, *rest.split()))

    def close(self, drain):
        if drain:
            for thread in self.threads:
                thread.join()


def log(line):
    if path := os.environ.get("FUSIONVL_SCRIPT_LOG"):
        with Path(path).open("a") as file:
            file.write(f"{line}\n")


def load_scripted(source, settings, limits):
    """A loader: `broken` cannot be loaded, `shaky` not the second time."""
    log(f"load {source} in {os.getpid()}")
    if source == "shaky" and Path(os.environ["FUSIONVL_SCRIPT_LOG"]).read_text().count("load shaky") == 2:
        raise ValueError("The disk is busy")
    if source.startswith("broken"):
        raise ValueError(f"The folder {source} cannot be loaded")
    batching = ScriptedBatching()
    mute, ended = threading.Event(), threading.Event()

    def beat():
        if ended.is_set():
            raise RuntimeError("the batching thread has failed")
        if mute.is_set():
            threading.Event().wait()
        return Beat(waiting=0, running=batching.running)

    def nap(who, seconds):
        log(f"nap {who}")
        time.sleep(seconds)

    calls = {"add": lambda a, b: a + b, "refuse": refuse, "nap": nap}
    calls |= {"mute": mute.set, "end": ended.set, "pid": os.getpid}
    return LoadedModel(batching, int(source.rpartition("-")[2]) if "-" in source else 1000, calls, beat)


def refuse():
    raise ValueError("no such call today")
