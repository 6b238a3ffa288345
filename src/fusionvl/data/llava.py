"""LLaVA conversation files, JSON and JSONL, to samples and back.

A record is `{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}]}`, with the marker `<image>` in the
first human value where there is an image. The marker is this format's only: samples do not hold it. Image paths are
resolved, never opened. A faulty record raises; nothing here skips, repairs or replaces one.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fusionvl.data.sample import Sample, Turn

IMAGE_MARKER = "<image>"


def read_llava(path: Path, *, image_root: Path | None = None) -> Iterator[Sample]:
    """Reads the samples of a LLaVA file, in order.

    A `.jsonl` file is read line by line and may be of any size; a `.json` file is one list and is held in memory.

    Args:
        path: the file. Its name without suffix becomes the samples' source.
        image_root: the folder image paths are relative to; by default the file's own.

    Raises:
        ValueError: at the first faulty record, naming file, record and fault.
    """
    root = path.parent if image_root is None else image_root
    for index, record in enumerate(_records(path)):
        try:
            yield parse_record(record, index=index, image_root=root, source=path.stem)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def parse_record(record: object, *, index: int, image_root: Path, source: str) -> Sample:
    """Turns one LLaVA record into a sample.

    Args:
        record: the decoded JSON value.
        index: its position in the file; becomes the id of a record without one.
        image_root: the folder its image path is relative to.
        source: the data set it comes from.

    Raises:
        ValueError: if the record is faulty, naming it by index and id.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"record {index}: must be an object, got {type(record).__name__}")
    given = record.get("id")
    sample_id = str(index if given is None or given == "" else given)
    try:
        image = _image_path(record.get("image"), image_root)
        turns = _turns(record.get("conversations"), has_image=image is not None)
        return Sample(id=sample_id, turns=turns, image=image, source=source)
    except ValueError as error:
        raise ValueError(f"record {index} (id {sample_id!r}): {error}") from error


def to_record(sample: Sample, *, image_root: Path) -> dict[str, Any]:
    """Writes a sample as a LLaVA record, its image path relative to a folder.

    Raises:
        ValueError: if the image is bytes or lies outside `image_root`, or if a text holds the image marker, which
            the format could not tell from a real one.
    """
    record: dict[str, Any] = {"id": sample.id}
    if isinstance(sample.image, bytes):
        raise ValueError(f"sample {sample.id!r}: a LLaVA file holds image paths; save the image to a file first")
    if sample.image is not None:
        if not sample.image.is_relative_to(image_root):
            raise ValueError(f"sample {sample.id!r}: image {sample.image} is not below the image root {image_root}")
        record["image"] = sample.image.relative_to(image_root).as_posix()
    conversations: list[dict[str, str]] = []
    for index, turn in enumerate(sample.turns):
        if IMAGE_MARKER in turn.question or IMAGE_MARKER in turn.answer:
            raise ValueError(f"sample {sample.id!r}, turn {index + 1}: the text holds the marker {IMAGE_MARKER}")
        marker = f"{IMAGE_MARKER}\n" if index == 0 and sample.image is not None else ""
        conversations.append({"from": "human", "value": marker + turn.question})
        conversations.append({"from": "gpt", "value": turn.answer})
    record["conversations"] = conversations
    return record


def write_llava(path: Path, samples: Iterable[Sample], *, image_root: Path | None = None) -> int:
    """Writes samples as a LLaVA file: one record a line for `.jsonl`, one list for `.json`.

    Args:
        path: the file to write.
        samples: what to write, in order.
        image_root: the folder image paths become relative to; by default the file's own.

    Returns:
        The number of samples written.

    Raises:
        ValueError: if the file has another suffix, or a sample cannot be written (see `to_record`).
    """
    lines_only = _is_jsonl(path)
    root = path.parent if image_root is None else image_root
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for sample in samples:
            if not lines_only:
                file.write(",\n" if count else "[\n")
            file.write(json.dumps(to_record(sample, image_root=root), ensure_ascii=False))
            if lines_only:
                file.write("\n")
            count += 1
        if not lines_only:
            file.write("\n]\n" if count else "[]\n")
    return count


def _is_jsonl(path: Path) -> bool:
    if path.suffix not in (".json", ".jsonl"):
        raise ValueError(f"{path}: a LLaVA file ends in .json or .jsonl")
    return path.suffix == ".jsonl"


def _records(path: Path) -> Iterator[object]:
    if _is_jsonl(path):
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _decode(line, where=f"{path}, line {number}")
        return
    records = _decode(path.read_text(encoding="utf-8-sig"), where=str(path))
    if not isinstance(records, list):
        raise ValueError(f"{path}: must hold a list of records, got {type(records).__name__}")
    yield from records


def _decode(text: str, *, where: str) -> object:
    try:
        decoded: object = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not valid JSON ({error})") from error
    return decoded


def _image_path(image: object, image_root: Path) -> Path | None:
    if image is None:
        return None
    if isinstance(image, list):
        raise ValueError(f"'image' is a list of {len(image)}; a sample has at most one image")
    if not isinstance(image, str) or not image.strip():
        raise ValueError(f"'image' must be a file name, got {image!r}; leave it out for a text-only record")
    return image_root / image


def _turns(conversations: object, *, has_image: bool) -> tuple[Turn, ...]:
    if not isinstance(conversations, list) or not conversations:
        raise ValueError("'conversations' must be a list of at least one question and one answer")
    values = [_value(entry, position) for position, entry in enumerate(conversations)]
    if len(values) % 2:
        raise ValueError(f"empty answer: the conversation ends with a question (entry {len(values)})")
    values[0] = _take_marker(values[0], has_image=has_image)
    for position, value in enumerate(values, start=1):
        if IMAGE_MARKER in value:
            raise ValueError(f"{IMAGE_MARKER} in entry {position}; an image stands in the first question, once")
    turns = []
    for position in range(0, len(values), 2):
        try:
            turns.append(Turn(question=values[position], answer=values[position + 1]))
        except ValueError as error:
            raise ValueError(f"turn {position // 2 + 1}: {error}") from error
    return tuple(turns)


def _value(entry: object, position: int) -> str:
    """Checks one entry's role and type; roles alternate, beginning with the human."""
    expected = "gpt" if position % 2 else "human"
    if not isinstance(entry, Mapping) or not isinstance(entry.get("value"), str):
        raise ValueError(f"entry {position + 1} must be an object with 'from' and a text 'value'")
    if entry.get("from") != expected:
        rule = "roles alternate" if position else "a conversation starts with the human"
        raise ValueError(f"entry {position + 1} must be from {expected!r}, got {entry.get('from')!r}: {rule}")
    value: str = entry["value"]
    return value


def _take_marker(question: str, *, has_image: bool) -> str:
    """Removes the image marker from a first question. Many files leave it out, so an image without one is fine."""
    if IMAGE_MARKER not in question:
        return question
    if not has_image:
        raise ValueError(f"{IMAGE_MARKER} in the first question, but the record has no 'image'")
    if question.count(IMAGE_MARKER) > 1:
        raise ValueError(f"{IMAGE_MARKER} {question.count(IMAGE_MARKER)} times; a sample has at most one image")
    return question.replace(IMAGE_MARKER, "").strip()
