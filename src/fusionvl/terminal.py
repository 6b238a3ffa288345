"""Asking and chatting in a terminal: streams answers, reads lines.

Knows a terminal and who answers, an engine or a server; parsing of commands is in `cli.py`.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fusionvl.engine import FusionEngine
from fusionvl.engine.engine import conversation
from fusionvl.processing import load_image

HELP = "Commands: /image PATH (another image, new conversation), /reset (same image, new conversation), /quit"


def print_answer(
    engine: FusionEngine, image: str | Path | None, question: str, num_latents: int | None, max_new_tokens: int
) -> None:
    """Ask one question and print the answer as it comes; its time, and what computed it, on the error stream."""
    pieces = engine.stream(conversation(image, question), num_latents=num_latents, max_new_tokens=max_new_tokens)
    _print_stream(pieces, engine.format)


def chat(stream: Callable[[list[dict[str, Any]]], Iterator[str]], image: str | None, note: str = "") -> None:
    """Talk about an image until the input ends; errors are told and the talk goes on.

    Args:
        stream: Answers a conversation piece by piece: an engine's, or a server's.
        image: Path of the first image.
        note: Stands behind every answer's time.
    """
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
            print(error, file=sys.stderr)
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
        print(piece, end="", flush=True)
    print()
    print(f"[{time.monotonic() - start:.2f} s{f', {note}' if note else ''}]", file=sys.stderr)
    return text.strip()


def _enable_line_editing() -> None:
    """History and editing keys for `input`, where the platform has them."""
    try:
        import readline  # noqa: F401 - its import is its effect
    except ModuleNotFoundError:
        print("(no line editing on this platform)", file=sys.stderr)
