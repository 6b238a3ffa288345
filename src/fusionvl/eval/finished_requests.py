"""Answers kept as they come, so that a killed run of lmms-eval goes on where it stopped.

lmms-eval's own response cache is filled when all answers are there; these files grow with every batch. Each process
appends to a file of its own and reads those of all, so a run may go on with another number of processes. Knows keys
and answers; knows no model and no lmms-eval.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class FinishedRequest:
    """One answered request.

    Attributes:
        key: Of all that the answer depends on.
        task: The benchmark's name, for people.
        doc_id: The question's number in it, for people.
        text: The answer.
        output_tokens: How many tokens were generated for it.
    """

    key: str
    task: str
    doc_id: int
    text: str
    output_tokens: int


class FinishedRequests:
    """The finished requests of a folder.

    Args:
        folder: Its folder; made when missing.
        rank: Number of this process.

    Raises:
        ValueError: When a line is no finished request; with file and line.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._found: dict[str, FinishedRequest] = {}
        for path in sorted(folder.glob("finished-*.jsonl")):
            self._found |= {request.key: request for request in _read(path)}
        path = folder / f"finished-{rank}.jsonl"
        self._file: IO[bytes] = path.open("ab")
        whole = path.read_bytes().rfind(b"\n") + 1
        self._file.truncate(whole)  # a killed run may leave half a line

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: str) -> FinishedRequest | None:
        """The finished request of a key, or None."""
        return self._found.get(key)

    def append(self, requests: Iterable[FinishedRequest]) -> None:
        """Keep requests; they are on the disk when this returns."""
        new = list(requests)
        self._file.write(b"".join(json.dumps(asdict(request)).encode() + b"\n" for request in new))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._found |= {request.key: request for request in new}


def _read(path: Path) -> list[FinishedRequest]:
    """The whole lines; another process may be writing the last one, or have been killed at it."""
    lines = path.read_bytes().split(b"\n")[:-1]
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(FinishedRequest(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}: not a finished request ({error}). Remove the line, it is then asked again"
            ) from error
    return found
