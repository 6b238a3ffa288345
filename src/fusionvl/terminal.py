"""Asking and chatting in a terminal: streams answers, reads lines, shows what a terminal would obey.

Knows a terminal and who answers, an engine or a server; parsing of commands is in `cli.py`. Imports what is heavy when
it is used, so that any command may print a sentence.
"""

import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionvl.engine import FusionEngine

# Control characters but tab and line end, marks that turn the direction of writing, and halves of characters, as which
# Python holds bytes of file names that are no text.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

HELP = "Commands: /image PATH (another image, new conversation), /reset (same image, new conversation), /quit"


def shown(text: str) -> str:
    """The text with whatever a terminal would obey, or cannot write, escaped: names of files may hold it."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def print_answer(
    engine: "FusionEngine", image: str | Path | None, question: str, num_latents: int | None, max_new_tokens: int
) -> None:
    """Ask one question and print the answer as it comes; its time, and what computed it, on the error stream."""
    from fusionvl.engine.engine import conversation

    pieces = engine.stream(conversation(image, question), num_latents=num_latents, max_new_tokens=max_new_tokens)
    _print_stream(pieces, engine.format)


def chat(stream: Callable[[list[dict[str, Any]]], Iterator[str]], image: str | None, note: str = "") -> None:
    """Talk about an image until the input ends; errors are told and the talk goes on.

    Args:
        stream: Answers a conversation piece by piece: an engine's, or a server's.
        image: Path of the first image.
        note: Stands behind every answer's time.
    """
    from fusionvl.engine.engine import conversation
    from fusionvl.processing import load_image

    _enable_line_editing()
    print(HELP)
    messages: list[dict[str, Any]] = []
    for line in _lines():
        if line in ("/quit", "/exit"):
            return
        if line == "/reset":
            messages.clear()
            continue
        try:
            if line.startswith("/image"):
                path = line.removeprefix("/image").strip()
                load_image(path)
                image = path
                messages.clear()
                continue
            if line.startswith("/"):
                print(HELP)
                continue
            asked = [*messages, *conversation(None if messages else image, line)]
            text = _print_stream(stream(asked), note)
        except ValueError as error:
            print(shown(str(error)), file=sys.stderr)
            continue
        messages = [*asked, {"role": "assistant", "content": [{"type": "text", "text": text}]}]


def _lines() -> Iterator[str]:
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return
        if line:
            yield line


def _print_stream(pieces: Iterator[str], note: str) -> str:
    start = time.monotonic()
    text = ""
    for piece in pieces:
        text += piece
        print(shown(piece), end="", flush=True)
    print()
    print(f"[{time.monotonic() - start:.2f} s{f', {note}' if note else ''}]", file=sys.stderr)
    return text.strip()


def _enable_line_editing() -> None:
    """History and editing keys for `input`, where the platform has them."""
    try:
        import readline  # noqa: F401 - its import is its effect
    except ModuleNotFoundError:
        print("(no line editing on this platform)", file=sys.stderr)
