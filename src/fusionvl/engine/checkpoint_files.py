"""A look at the files of a model's folder before anything is loaded: whole, and what their names promise.

Damaged files make loaders fail in a hundred ways, some of them late. Knows names and file formats, no model.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fusionvl.model.released import refuse_pickle

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")  # fast, SentencePiece, slow byte-level ones
_OBJECTS = ("config.json", "generation_config.json", "processor_config.json", "tokenizer_config.json")
INDEX = "model.safetensors.index.json"


def check_configuration(folder: Path) -> None:
    """Check the JSON files of a folder.

    Raises:
        ValueError: There is no `config.json`, or a file holds no JSON object; the message names it.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"The folder {folder} holds no config.json: it is not a model")
    for name in _OBJECTS:
        if (folder / name).exists():
            _json_object(folder / name)


def check_tokenizer(folder: Path) -> None:
    """Check that a folder holds a tokenizer.

    Raises:
        ValueError: It holds none, or an empty one.
    """
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise ValueError(f"The folder {folder} holds no tokenizer (none of {', '.join(TOKENIZER_FILES)})")
    if (folder / "tokenizer.json").exists() and "model" not in _json_object(folder / "tokenizer.json"):
        raise ValueError(f"{folder / 'tokenizer.json'} is not a tokenizer: it has no 'model'")


def check_weights(folder: Path) -> None:
    """Check that a folder's weights are safetensors files, all there and none cut off. Reads their heads only.

    Raises:
        ValueError: With the file at fault.
    """
    refuse_pickle(folder)
    index = folder / INDEX
    names = set(_json_object(index).get("weight_map", {}).values()) if index.exists() else {"model.safetensors"}
    for name in sorted(names):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} holds no {name}: its weights are not all there")
        try:
            with safe_open(folder / name, "pt") as tensors:
                tensors.keys()
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{folder / name} is damaged or cut off ({error}): fetch it again") from error


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, not a JSON object")
    return content
