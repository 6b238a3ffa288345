"""Near-duplicates: texts by MinHash, images by perceptual hash. Names the group each row is in.

A group is named after its first row. How many of a group are kept, and which, is for the selection to say. Needs
datasketch and imagehash.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from fusionvl.data.extras import import_extra
from fusionvl.synth.filters.columns import Columns, Score
from fusionvl.synth.rows import Row

DUPLICATE_COLUMNS = ("text_group", "image_group")

_SHINGLE = 3  # words
_PERMUTATIONS = 128
_WORD = re.compile(r"\w+")


class Duplicates:
    """Compares each row with all rows before it; give it the rows in order, in as many pieces as you like.

    Args:
        text_similarity: Share of three-word sequences that two rows' texts have in common, from which they are near.
        image_distance: Bits of 64 by which the hashes of near images may differ.

    Raises:
        ValueError: If a limit is out of range.
        ModuleNotFoundError: If datasketch or imagehash is not installed.
    """

    def __init__(self, text_similarity: float = 0.8, image_distance: int = 4) -> None:
        if not 0 < text_similarity < 1 or not 0 <= image_distance < 32:
            raise ValueError(
                f"text similarity must be between 0 and 1 and image distance from 0 to 31,"
                f" got {text_similarity} and {image_distance}"
            )
        self._datasketch = import_extra("datasketch", extra="synth", needed_for="finding near-duplicate texts")
        self._imagehash = import_extra("imagehash", extra="synth", needed_for="finding near-duplicate images")
        self._texts = self._datasketch.MinHashLSH(threshold=text_similarity, num_perm=_PERMUTATIONS)
        self._text_similarity = text_similarity
        self.settings = {"text_similarity": text_similarity, "image_distance": image_distance}
        self._sketches: dict[str, Any] = {}
        self._hashes = NearHashes(image_distance)

    def score(self, rows: Sequence[Row], folder: Path) -> Columns:
        """Names each row's groups.

        Returns:
            `text_group` and `image_group`: the id of the first row of the group; the latter is None where the image
            does not decode.
        """
        groups: list[tuple[Score, Score]] = [(self._text_group(row), self._image_group(row, folder)) for row in rows]
        return {"text_group": [text for text, _ in groups], "image_group": [image for _, image in groups]}

    def _text_group(self, row: Row) -> str:
        sketch = self._datasketch.MinHash(num_perm=_PERMUTATIONS)
        sketch.update_batch([shingle.encode() for shingle in shingles(row)])
        near = [(sketch.jaccard(self._sketches[name]), name) for name in self._texts.query(sketch)]
        similarity, group = max(near, default=(0.0, row.id))
        if similarity >= self._text_similarity:
            return group
        self._texts.insert(row.id, sketch)
        self._sketches[row.id] = sketch
        return row.id

    def _image_group(self, row: Row, folder: Path) -> str | None:
        if row.image is None:
            return None
        try:
            with Image.open(folder / row.image) as image:
                bits = int(str(self._imagehash.phash(image)), 16)
        except (OSError, SyntaxError, Image.DecompressionBombError):
            return None
        return self._hashes.group(bits, row.id)


class NearHashes:
    """Finds hashes of 64 bits that differ in few of them, among millions.

    Cut into one piece more than bits may differ, near hashes have a piece in common.

    Args:
        distance: Most bits that differ.
    """

    def __init__(self, distance: int) -> None:
        self._distance = distance
        edges = [64 * cut // (distance + 1) for cut in range(distance + 2)]
        self._pieces = [(start, (1 << (end - start)) - 1) for start, end in pairwise(edges)]
        self._found: list[dict[int, list[tuple[int, str]]]] = [{} for _ in self._pieces]

    def group(self, bits: int, name: str) -> str:
        """The name of the first hash near this one; a hash far from all others begins a group of its own name."""
        keys = [bits >> start & mask for start, mask in self._pieces]
        near = [
            ((bits ^ other).bit_count(), group)
            for found, key in zip(self._found, keys, strict=True)
            for other, group in found.get(key, ())
        ]
        distance, group = min(near, default=(64, name))
        if distance <= self._distance:
            return group
        for found, key in zip(self._found, keys, strict=True):
            found.setdefault(key, []).append((bits, name))
        return name


def shingles(row: Row) -> set[str]:
    """The three-word sequences of what a row says: its description, or its caption, and its turns."""
    texts = [row.description or row.caption, *(f"{turn.question} {turn.answer}" for turn in row.turns)]
    words = _WORD.findall(" ".join(texts).casefold())
    return {" ".join(words[at : at + _SHINGLE]) for at in range(max(1, len(words) - _SHINGLE + 1))}
