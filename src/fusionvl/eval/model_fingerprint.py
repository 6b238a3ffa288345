"""A short name for a model by the contents of its files: a copy is the same model, an edited one is another.

Knows how models lie in folders and in the hub's cache; loads none.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fusionvl.run_folder import fingerprint

_WEIGHTS = ("*.safetensors", "*.bin")  # the first kind that there is is what is loaded
_OTHERS = ("*.json", "*.jinja", "*.model", "*.txt")  # configuration, templates, tokenizer


def model_fingerprint(name: str | Path) -> str:
    """Read all that a model's answers depend on: some seconds for ten gigabytes.

    Args:
        name: Folder, or hub name; the latter is downloaded unless it is in the cache.

    Raises:
        ValueError: When there is no such model, or its folder holds no weights.
    """
    folder = _folder_of(str(name))
    weights = next((found for pattern in _WEIGHTS if (found := sorted(folder.glob(pattern)))), [])
    if not weights:
        raise ValueError(f"The folder {folder} cannot be loaded as a model: it holds no {' or '.join(_WEIGHTS)}")
    files = [*weights, *(path for pattern in _OTHERS for path in sorted(folder.glob(pattern)))]
    with ThreadPoolExecutor(4) as threads:
        contents = threads.map(fingerprint, files)
        return fingerprint(dict(zip((path.name for path in files), contents, strict=True)))


def _folder_of(name: str) -> Path:
    from huggingface_hub import snapshot_download

    from fusionvl.engine.loading import in_one_sentence

    with in_one_sentence(name):
        if Path(name).is_dir():
            return Path(name)
        return Path(snapshot_download(name, allow_patterns=[_WEIGHTS[0], *_OTHERS]))
