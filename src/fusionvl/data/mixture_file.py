"""What a mixture file says, checked and typed: which data sets, how much of each, where their images are.

Takes upstream's files unchanged (`datasets: [{json_path, sampling_strategy}]`). Everything that is wrong with a file
is told with file, entry and remedy. Opens no data; that is `mixture.py`.
"""

import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fusionvl.data.sampling_strategy import Strategy

Found = TypeVar("Found")

_FILE_KINDS = ("csv", "json", "jsonl", "parquet", "tar")
_WITH_IMAGE_FOLDER = ("csv", "json", "jsonl")
_EASY_VQA = "easy-vqa"
_KEYS = {"kind", "name", "sampling_strategy", "weight"}
_FILE_KEYS = _KEYS | {"json_path", "path", "image_folder"}
_EASY_VQA_OPTIONS = {"part", "questions", "max_turns"}


@dataclass(frozen=True)
class MixtureEntry:
    """One data set of a mixture.

    Attributes:
        where: mixture file and entry, for messages.
        kind: how its files are read: csv, json, jsonl, parquet or tar; or easy-vqa.
        name: names the source.
        files: what it consists of, in order; none for easy-VQA.
        strategy: which of its rows take part.
        image_folder: what its image paths are relative to; None for the file's own folder.
        weight: its share of the samples against the other weights; None for natural proportions.
        options: further arguments of its kind.
    """

    where: str
    kind: str
    name: str
    files: tuple[Path, ...]
    strategy: Strategy
    image_folder: Path | None
    weight: float | None
    options: Mapping[str, Any]


def read_mixture_file(
    description: Path | Mapping[str, Any], *, image_folder: Path | None = None
) -> tuple[MixtureEntry, ...]:
    """Reads a mixture: a YAML file, or what such a file would hold; one data file or folder is a mixture by itself.

    Keys of an entry: `json_path` (or `path`: a file, a pattern such as `shards/*.tar`, or a folder, which stands for
    the data files of one kind that lie in it; pictures are none), `sampling_strategy` (see
    `Strategy`; `all` if left out), `image_folder`, `weight` (for every entry or for none), `kind` (by default from the
    file's ending) and `name` (by default the file's). easy-VQA is `kind: easy-vqa` without a file, with `part`,
    `questions` and `max_turns`. Relative paths are looked up from the mixture file's folder, then from the working
    directory.

    Args:
        description: the file or its contents.
        image_folder: for entries without one of their own.

    Raises:
        ValueError: if a key or value is not understood, or a file or folder is missing.
    """
    if isinstance(description, Mapping):
        where, base, content = "mixture", Path(), dict(description)
    else:
        where, base, content = str(description), description.parent, _load(description)
    if unknown := sorted(set(content) - {"datasets"}, key=str):
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; a mixture has the key 'datasets' alone")
    datasets = content.get("datasets")
    if not isinstance(datasets, list) or not datasets:
        raise ValueError(f"{where}: 'datasets' must be a list of at least one entry, each with a 'json_path'")
    entries = [
        _entry(given, f"{where}: entry {number}", base, image_folder) for number, given in enumerate(datasets, start=1)
    ]
    _check_weights(entries, where)
    return _with_distinct_names(entries)


def _load(path: Path) -> dict[Any, Any]:
    if path.is_dir() or _ending(path) in _FILE_KINDS:
        return {"datasets": [{"path": path.absolute()}]}
    if not path.is_file():
        raise ValueError(f"{path}: there is no such mixture file or folder")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold 'datasets:' and a list, got {type(content).__name__}")
    return content


def _entry(given: object, where: str, base: Path, image_folder: Path | None) -> MixtureEntry:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: must be keys and values, got {given!r}")
    is_easy_vqa = given.get("kind") == _EASY_VQA
    known = _KEYS | _EASY_VQA_OPTIONS if is_easy_vqa else _FILE_KEYS
    if unknown := sorted(set(given) - known, key=str):
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
    try:
        name, weight = _text(given, "name"), _weight(given.get("weight"))
        strategy = Strategy.parse(given.get("sampling_strategy", "all"))
        if is_easy_vqa:
            options = {key: given[key] for key in given if key in _EASY_VQA_OPTIONS}
            return MixtureEntry(where, _EASY_VQA, name or "easy-vqa-train", (), strategy, None, weight, options)
        files = _files(given, base)
        kind = _kind(given.get("kind"), files)
        folder = _image_folder(given, kind, base, image_folder)
        return MixtureEntry(where, kind, name or files[0].stem, files, strategy, folder, weight, {})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _files(given: Mapping[Any, Any], base: Path) -> tuple[Path, ...]:
    paths = [text for key in ("json_path", "path") if (text := _text(given, key))]
    if len(paths) != 1:
        raise ValueError("give the file as 'json_path' or as 'path', and only once")
    kinds = ", ".join(f".{kind}" for kind in _FILE_KINDS)
    missing = (
        f"there is no data file {{}}, and no folder with one ({kinds}); correct 'json_path', or take the entry out"
    )
    return _look(paths[0], base, _matching, missing)


def _matching(place: Path) -> tuple[Path, ...]:
    """The file of this name, the data files in a folder of this name, or the files that it is a pattern of."""
    if place.is_file():
        return (place,)
    if place.is_dir():
        return _data_files(place)
    return tuple(path for name in sorted(glob.glob(str(place), recursive=True)) if (path := Path(name)).is_file())


def _data_files(folder: Path) -> tuple[Path, ...]:
    found = [path for path in sorted(folder.iterdir()) if _ending(path) in _FILE_KINDS and path.is_file()]
    if len({_ending(path) for path in found}) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder} holds data files of several kinds ({names}); name the one that is meant")
    return tuple(found)


def _kind(given: object, files: tuple[Path, ...]) -> str:
    kind = _ending(files[0]) if given is None else given
    if kind in _FILE_KINDS:
        return str(kind)
    if given is not None:
        raise ValueError(f"unknown kind {given!r}; known are {', '.join((*_FILE_KINDS, _EASY_VQA))}")
    raise ValueError(
        f"{files[0]}: cannot tell what it is from its ending; set 'kind' to one of {', '.join(_FILE_KINDS)}"
    )


def _ending(path: Path) -> str:
    return path.suffix.removeprefix(".").lower()


def _image_folder(given: Mapping[Any, Any], kind: str, base: Path, default: Path | None) -> Path | None:
    text = _text(given, "image_folder")
    if kind in _WITH_IMAGE_FOLDER:
        if text is None and default is None:
            return None
        # The default was not written in the mixture file, so it is not looked up from there.
        start = base if text else Path()
        missing = "there is no image folder {}; correct 'image_folder'"
        return _look(text or str(default), start, lambda place: place if place.is_dir() else None, missing)
    if text:
        raise ValueError(f"'image_folder' is for CSV and JSON files; {kind} files hold their images themselves")
    return None


def _look(path: str, base: Path, find: Callable[[Path], Found | None], missing: str) -> Found:
    """What is found at a path from the mixture file's folder, else from the working directory."""
    places = dict.fromkeys((base / path, Path(path)))
    for place in places:
        if found := find(place):
            return found
    raise ValueError(missing.format(" or ".join(map(str, places))))


def _weight(given: object) -> float | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < float("inf"):
        raise ValueError(f"'weight' must be a number above 0, got {given!r}")
    return float(given)


def _text(given: Mapping[Any, Any], key: str) -> str | None:
    value = given.get(key)
    if value is None:
        return None
    if not isinstance(value, str | Path) or not str(value).strip():
        raise ValueError(f"{key!r} must be text, got {value!r}")
    return str(value)


def _check_weights(entries: list[MixtureEntry], where: str) -> None:
    without = [entry for entry in entries if entry.weight is None]
    if without and len(without) < len(entries):
        raise ValueError(f"{where}: 'weight' must stand in every entry or in none; {without[0].where} has none")


def _with_distinct_names(entries: list[MixtureEntry]) -> tuple[MixtureEntry, ...]:
    """Numbers entries of the same name, as when one file stands in a mixture twice: `caps`, `caps#2`."""
    seen: dict[str, int] = {}
    distinct = []
    for entry in entries:
        seen[entry.name] = seen.get(entry.name, 0) + 1
        count = seen[entry.name]
        distinct.append(entry if count == 1 else replace(entry, name=f"{entry.name}#{count}"))
    return tuple(distinct)
