"""`run.json`: what a folder's scores depend on, and when and with what they were begun.

A folder belongs to one task, one model and one way of asking: others are refused. Knows no questions.
"""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fusionvl.eval.sample_file import as_stored, replace_file
from fusionvl.provenance import commit_of, setting_differences, versions_of

RECORD = "run.json"
_PACKAGES = ("fusionvl", "torch", "transformers", "tokenizers", "pillow", "numpy", "openai")


def claim(folder: Path, settings: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Begin scores in a folder, or go on with those that are there. Several processes may do so at once.

    A run that ended before its first sample leaves the folder to the corrected command.

    Args:
        folder: Of one task's scores.
        settings: All that the answers and scores depend on; JSON.
        told: What a reader wants to know besides, of the call that begins: the model's name, the batch size; JSON.

    Raises:
        ValueError: When the folder holds scores made with other settings; names each.
    """
    path = folder / RECORD
    folder.mkdir(parents=True, exist_ok=True)
    begun = any(samples.stat().st_size for samples in folder.glob("samples*.jsonl"))
    if not path.exists():
        if begun:
            raise ValueError(f"{folder} holds samples and no {RECORD}: choose another --output")
        _write_first(path, settings, told)
    changed = setting_differences(read_record(folder)["settings"], as_stored(settings))
    if changed and not begun:
        replace_file(path, _record(settings, told))
    elif changed:
        difference = "; ".join(f"{name}: {before!r} there, {now!r} here" for name, (before, now) in changed.items())
        raise ValueError(f"{folder} holds other scores ({difference}): choose another --output")


def read_record(folder: Path) -> dict[str, Any]:
    """What a folder says about its scores.

    Raises:
        ValueError: When it holds none, or the record cannot be read.
    """
    path = folder / RECORD
    if not path.is_file():
        raise ValueError(f"{folder} is no folder of `fusionvl eval`: it has no {RECORD}")
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
    if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
        raise ValueError(f"{path} holds no settings")
    return record


def _write_first(path: Path, settings: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Write the record unless another process was quicker."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.write_bytes(_record(settings, told))
    try:
        os.link(unfinished, path)
    except FileExistsError:
        return
    finally:
        unfinished.unlink()


def _record(settings: Mapping[str, Any], told: Mapping[str, Any]) -> bytes:
    record = {
        **told,
        "settings": settings,
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions_of(_PACKAGES),
        "commit": commit_of(Path(__file__)),
    }
    return json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n"
