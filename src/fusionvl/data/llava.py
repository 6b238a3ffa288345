"""LLaVA conversation files, JSON and JSONL, to samples and back.

A record is `{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}]}`, with the marker `<image>` in the
first human value where there is an image. The marker is this format's only: samples do not hold it. Image paths are
resolved, never opened. A faulty record raises; nothing here skips, repairs or replaces one.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusionvl.data.json_file import JsonFile
from fusionvl.data.record_file import RecordFile
from fusionvl.data.sample import ImageRef, Sample, Turn

IMAGE_MARKER = "<image>"


def read_llava(path: Path, *, image_root: Path | None = None) -> Iterator[Sample]:
    """Reads the samples of a LLaVA file of any size, in order.

    Args:
        path: the file. Its name without suffix becomes the samples' source.
        image_root: the folder image paths are relative to; by default the file's own.

    Raises:
        ValueError: at the first faulty record, naming file, record and fault.
    """
    file = JsonFile(path, lines=_is_jsonl(path), image_folder=image_root)
    for row, (place, _) in enumerate(file.scan()):
        yield read_row(file, place, row=row, source=path.stem)


def read_row(file: RecordFile, place: Sequence[int], *, row: int, source: str) -> Sample:
    """Reads one record of a file as a sample.

    Args:
        file: of any kind.
        place: where the record is in it.
        row: the record's number in it; becomes the id of a record without one.
        source: the data set it comes from.

    Raises:
        ValueError: if the record is faulty, naming file, record and fault.
    """
    try:
        return parse_record(file.fetch(*place), row=row, source=source)
    except ValueError as error:
        raise ValueError(f"{file.path}: record {row}: {error}") from error


def parse_record(record: object, *, row: int, source: str) -> Sample:
    """Turns one LLaVA record into a sample.

    Args:
        record: the decoded JSON value, its image being a path or the contents of a file.
        row: its position in the file; becomes the id of a record without one.
        source: the data set it comes from.

    Raises:
        ValueError: if the record is faulty, naming it by its id.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"must be an object, got {type(record).__name__}")
    given = record.get("id")
    sample_id = str(row if given is None or given == "" else given)
    try:
        image = _image(record.get("image"))
        turns = _turns(record.get("conversations"), has_image=image is not None)
        return Sample(id=sample_id, turns=turns, image=image, source=source)
    except ValueError as error:
        raise ValueError(f"id {sample_id!r}: {error}") from error


def measure_record(record: Any) -> tuple[int, int, bool]:
    """Returns characters, turns, and whether there is an image: those of the record's sample.

    The record is not checked; of one that makes no sample the answer means nothing.
    """
    try:
        values = [entry["value"] for entry in record["conversations"]]
        values[0] = _without_marker(values[0])
        return sum(map(len, values)), len(values) // 2, record.get("image") is not None
    except (AttributeError, IndexError, KeyError, TypeError):
        return 0, 0, False


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


def _image(image: object) -> ImageRef | None:
    if image is None or isinstance(image, Path):
        return image
    if isinstance(image, bytes):
        if not image:
            raise ValueError("its image is stored with 0 bytes")
        return image
    if isinstance(image, list):
        raise ValueError(f"'image' is a list of {len(image)}; a sample has at most one image")
    raise ValueError(
        f"'image' must be a file name (in parquet files the contents of the file), got {image!r}; leave it out for a "
        "text-only record"
    )


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
    return _without_marker(question)


def _without_marker(question: str) -> str:
    return question.replace(IMAGE_MARKER, "").strip() if IMAGE_MARKER in question else question
