"""Makes tests/reference from the full set of reference files: what the tests compare, small enough to live in git.

    python scripts/thin_reference.py FULL tests/reference

The same full set always gives the same files. tests/reference/README.md says what they are.
"""

import argparse
import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save

COPIED = ("checkpoints", "images", "prompts.json", "tokenizers")

# Logits: every position but the image tokens (answers, question ends, latent tokens and the text between them are few,
# and it is there that the parts of the model meet), and every eighth position of the row, so image tokens too.
LOGITS_STRIDE = 8
# Features: the grids are 24, 27, 48 and 54 wide. 7 divides none of these, so every row and every column is seen.
FEATURES_STRIDE = 7
# Pixels of the two pictures: enough to see where views differ; whether they differ at all, their checksum tells.
PIXELS_STRIDE = 8

FEATURES = ("guided_features", "patch_embeddings", "reconstructed_patches", "global_features")
IMAGE_OR_LATENT_MARKERS = (-200, -300)

Tensors = dict[str, np.ndarray]


def image_positions(ids: Sequence[int], num_image_tokens: int, num_latents: int) -> tuple[range, int]:
    """Where the image tokens of one row are once its markers are expanded, and how long it is then."""
    markers = [position for position, token in enumerate(ids) if token in IMAGE_OR_LATENT_MARKERS]
    image = range(markers[0], markers[0] + num_image_tokens)  # the first marker is the image, whatever its number
    return image, len(ids) - len(markers) + num_image_tokens + num_latents * (len(markers) - 1)


def logits_positions(tensors: Tensors, case: str) -> np.ndarray:
    """Pairs of row and position that are kept; padding is not."""
    num_image_tokens = tensors["encoder.patch_embeddings"].shape[1]
    num_latents = int(re.findall(r"latent(\d+)", case)[0])
    pairs, lengths = [], []
    for row, (ids, real) in enumerate(
        zip(tensors[f"{case}.input_ids"], tensors[f"{case}.attention_mask"], strict=True)
    ):
        image, length = image_positions(ids[real].tolist(), num_image_tokens, num_latents)
        lengths.append(length)
        pairs += [(row, place) for place in range(length) if place not in image or place % LOGITS_STRIDE == 0]
    if max(lengths) != tensors[f"{case}.logits"].shape[1]:
        shape = tensors[f"{case}.logits"].shape
        raise ValueError(
            f"{case}: its rows expand to {lengths} tokens but the logits are {shape}; markers are misread"
        )
    return np.array(pairs)


def thin_golden(tensors: Tensors) -> tuple[Tensors, dict[str, Any]]:
    """The tensors to keep, and what is to be remembered of the full ones."""
    pixels = tensors["pixel_values_uint8"]
    kept = {name: tensor for name, tensor in tensors.items() if name != "pixel_values_uint8"}
    full: dict[str, Any] = {"pixel_values_uint8": described(pixels)}
    for name in sorted(tensors):
        case, _, what = name.rpartition(".")
        if what == "logits":
            positions = logits_positions(tensors, case)
            kept[name] = tensors[name][tuple(positions.T)]
        elif case == "encoder" and what in FEATURES:
            length, patches = tensors[name].shape[1], tensors["encoder.patch_embeddings"].shape[1]
            guide = range(patches, length) if what == "guided_features" else ()
            positions = np.array(sorted({*range(0, length, FEATURES_STRIDE), *guide}))
            kept[name] = tensors[name][:, positions]
        else:
            continue
        kept[f"{name}_positions"] = positions
        full[name] = {"shape": tensors[name].shape}
    return kept, full


def described(pixels: np.ndarray) -> dict[str, Any]:
    """Shape and checksum, for tests to prove that they have the same pixels."""
    return {"shape": pixels.shape, "sha256": hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()}


def write_tensors(tensors: Tensors, full: dict[str, Any], path: Path) -> None:
    """One entry of metadata: the order of several would be left to chance."""
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    path.write_bytes(save(contiguous, metadata={"full_set": json.dumps(full, sort_keys=True)}))


def write_views(views: np.ndarray, path: Path) -> None:
    """The five views of one image below one another, without loss."""
    Image.fromarray(views.transpose(0, 2, 3, 1).reshape(-1, views.shape[-1], 3)).save(path, optimize=True)


def copy(source: Path, target: Path) -> None:
    """Contents only: a full set that is read-only does not make the thinned one so."""
    for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
        if file.is_file():
            to = target / file.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, to)


def read_full_set(folder: Path) -> tuple[dict[str, Tensors], Tensors]:
    """The goldens by checkpoint, and the views of the pictures.

    Raises:
        ValueError: when something is missing, or the goldens do not share their pixels.
    """
    missing = [name for name in (*COPIED, "golden", "preprocess.safetensors") if not (folder / name).exists()]
    if missing:
        raise ValueError(f"{folder} holds no {', '.join(missing)}: name the folder of the full set")
    goldens = {path.stem: load_file(path) for path in sorted((folder / "golden").glob("*.safetensors"))}
    pixels = [tensors.get("pixel_values_uint8") for tensors in goldens.values()]
    if any(these is None for these in pixels):
        raise ValueError(f"goldens in {folder} have no pixel_values_uint8: this is a thinned set, name the full one")
    if any(not np.array_equal(these, pixels[0]) for these in pixels):
        raise ValueError(f"goldens in {folder} have unequal pixels: they can no longer be stored once for all")
    return goldens, load_file(folder / "preprocess.safetensors")


def thin(full: Path, target: Path) -> None:
    """Write the thinned set; what lies in the target beside it, like the README, stays."""
    goldens, pictures = read_full_set(full)  # before anything is removed: a thinned set cannot overwrite itself
    thinned = {name: thin_golden(tensors) for name, tensors in goldens.items()}

    for name in COPIED:
        if (target / name).is_dir():
            shutil.rmtree(target / name)
        copy(full / name, target / name)
    shutil.rmtree(target / "golden", ignore_errors=True)
    (target / "golden").mkdir()
    for name, (tensors, facts) in thinned.items():
        write_tensors(tensors, facts, target / "golden" / f"{name}.safetensors")
    for index, views in enumerate(next(iter(goldens.values()))["pixel_values_uint8"]):
        write_views(views, target / "golden" / f"views_{index}.png")

    pixels = {name: views[..., ::PIXELS_STRIDE, ::PIXELS_STRIDE] for name, views in pictures.items()}
    facts = {name: described(views) | {"rows_and_columns": PIXELS_STRIDE} for name, views in pictures.items()}
    write_tensors(pixels, facts, target / "preprocess.safetensors")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make tests/reference from the full set of reference files.")
    parser.add_argument("full", type=Path, help="folder of the full set")
    parser.add_argument("target", type=Path, help="folder to write, such as tests/reference")
    arguments = parser.parse_args()
    if arguments.full.resolve() == arguments.target.resolve():
        parser.error("FULL and TARGET are the same folder")
    thin(arguments.full, arguments.target)
    size = sum(file.stat().st_size for file in arguments.target.rglob("*") if file.is_file())
    print(f"{arguments.target}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
