"""`samples.jsonl`: one line per answered question, written as it goes, whole again after a kill.

A process killed at any moment leaves at most one torn line at the end, which the next writer cuts off. A line whose
judge failed may be followed by a later one of the same id, which then counts. Knows samples, no tasks.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from fusionvl.eval.task import Sample

SAMPLES = "samples.jsonl"
_FIELDS = {field.name for field in fields(Sample)}


class SampleFile:
    """The samples of one process, for one writer at a time; a context manager.

    Args:
        path: Its file; need not exist.

    Raises:
        ValueError: When another process writes it, or a line is no sample.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ValueError(f"Another process writes {path}: wait for it, or choose another --output") from error
        try:
            self.samples, end = _read(path)
            self._file: IO[bytes] = path.open("ab")
            self._file.truncate(end)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> "SampleFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._lock.release()

    def append(self, samples: Iterable[Sample]) -> None:
        """Keep samples: they are in the system's hands when this returns."""
        new = list(samples)
        self._file.write(b"".join(map(_to_line, new)))
        self._file.flush()
        self.samples |= {sample.id: sample for sample in new}


def read_samples(path: Path) -> dict[str, Sample]:
    """All samples of a file, by id, in the order of their first lines; a torn last line is left out.

    Raises:
        ValueError: When there is no such file, a line is no sample, or a scored id comes again.
    """
    if not path.is_file():
        raise ValueError(f"There is no {path}: nothing was scored there, or not all of it yet")
    return _read(path)[0]


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write all samples at once; a kill leaves the file as it was or as it is to be."""
    replace_file(path, b"".join(map(_to_line, samples)))


def replace_file(path: Path, content: bytes) -> None:
    """Write a file; a kill leaves it as it was or as it is to be."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def as_stored(value: Any) -> Any:
    """A value as it will be read back: tuples are lists, keys are strings."""
    return json.loads(json.dumps(value))


def _to_line(sample: Sample) -> bytes:
    return json.dumps(asdict(sample), ensure_ascii=False).encode(errors="surrogatepass") + b"\n"


def _to_sample(line: bytes) -> Sample:
    values = json.loads(line)
    if not isinstance(values, Mapping) or values.keys() != _FIELDS:
        raise ValueError(f"not the fields of a sample ({', '.join(sorted(_FIELDS))})")
    return Sample(**values)


def _read(path: Path) -> tuple[dict[str, Sample], int]:
    """The samples, and where the last whole line ends."""
    samples: dict[str, Sample] = {}
    end = 0
    if not path.exists():
        return samples, end
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                sample = _to_sample(line)
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {number}: {error}. Remove that line, its question is then asked again"
                ) from error
            earlier = samples.get(sample.id)
            if earlier is not None and earlier.score is not None:
                raise ValueError(f"{path}, line {number}: {sample.id} was scored before; remove one of its lines")
            samples[sample.id] = sample
            end += len(line)
    return samples, end
