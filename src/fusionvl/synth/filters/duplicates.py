"""Near-duplicates: a row's sketch of its text (MinHash) and hash of its image, and the groups that follow from them.

Sketches are made row by row, and kept; which rows are near is found over the whole run from them alone, without a text
or image. How many of a group stay, and which, is for the selection to say. Needs datasketch, imagehash and scipy.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionvl.data.extras import import_extra
from fusionvl.synth.filters.filter import Filter, FilterModels, Scores, plain_filter
from fusionvl.synth.filters.images import decoded
from fusionvl.synth.rows import Row

DUPLICATE_COLUMNS = {"text_sketch": bytes, "image_hash": str}

TEXT_SIMILARITY = 0.8
"""Share of three-word sequences that two rows' texts have in common, from which they are near."""

IMAGE_DISTANCE = 4
"""Bits of 64 by which the hashes of near images may differ."""

_SHINGLE = 3  # words
_PERMUTATIONS = 128
_BANDS, _BAND = 9, 13  # of a sketch: near texts have one in common, most others none
_PIECES, _SHARED = 6, 2  # of a hash cut into six, two are free of any four bits that differ
_COMPARED = 16384  # sketches at once: copies of them take memory
_WORD = re.compile(r"\w+")

Numbers = NDArray[np.int64]
Keys = NDArray[np.uint64]


def duplicates_filter(models: FilterModels) -> Filter:
    """The filter `duplicates`.

    Raises:
        ModuleNotFoundError: If datasketch or imagehash is not installed; says how to install it.
    """
    datasketch = import_extra("datasketch", extra="synth", needed_for="finding near-duplicate texts")
    imagehash = import_extra("imagehash", extra="synth", needed_for="finding near-duplicate images")
    score = partial(score_duplicates, datasketch=datasketch, imagehash=imagehash)
    return plain_filter("duplicates", DUPLICATE_COLUMNS, score, "datasketch", "imagehash", "pillow")


def score_duplicates(row: Row, folder: Path, datasketch: Any, imagehash: Any) -> Scores:
    """Makes the sketches that near rows are found by.

    Returns:
        `text_sketch`: of what the row says; `image_hash`: None where the image does not decode.
    """
    sketch = datasketch.MinHash(num_perm=_PERMUTATIONS)
    sketch.update_batch([shingle.encode() for shingle in shingles(row)])
    image = decoded(row, folder)
    return {
        # The last byte of each number tells nearly as much: two that differ share it once in 256 times.
        "text_sketch": sketch.hashvalues.astype(np.uint8).tobytes().hex(),
        "image_hash": None if image is None else str(imagehash.phash(image)),
    }


def shingles(row: Row) -> set[str]:
    """The three-word sequences of what a row says: its description, or its caption, and its turns."""
    texts = [row.description or row.caption, *(f"{turn.question} {turn.answer}" for turn in row.turns)]
    words = _WORD.findall(" ".join(texts).casefold())
    return {" ".join(words[at : at + _SHINGLE]) for at in range(max(1, len(words) - _SHINGLE + 1))}


def text_groups(sketches: Iterable[bytes], count: int) -> Numbers:
    """For each of so many sketches, the place of the first in its group: itself, or one that it is near to."""
    table = np.empty((count, _PERMUTATIONS), dtype=np.uint8)
    for place, sketch in enumerate(sketches):
        table[place] = np.frombuffer(sketch, dtype=np.uint8)

    def are_near(some: Numbers, others: Numbers) -> NDArray[np.bool_]:
        near = np.empty(len(some), dtype=np.bool_)
        for start in range(0, len(some), _COMPARED):
            part = slice(start, start + _COMPARED)
            near[part] = (table[some[part]] == table[others[part]]).mean(axis=1) >= TEXT_SIMILARITY
        return near

    def keys() -> Iterator[Keys]:
        factors = np.random.default_rng(0).integers(0, 2**63, _BAND, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        for start in range(0, _BANDS * _BAND, _BAND):
            bands = table[:, start : start + _BAND]
            parts = (bands[place : place + _COMPARED] @ factors for place in range(0, count, _COMPARED))
            yield np.concatenate([np.empty(0, dtype=np.uint64), *parts])

    return near_groups(count, keys(), are_near)


def image_groups(hashes: Keys) -> Numbers:
    """For each hash of an image, the place of the first in its group: itself, or one that it is near to."""

    def are_near(some: Numbers, others: Numbers) -> NDArray[np.bool_]:
        return np.asarray(np.bitwise_count(hashes[some] ^ hashes[others]) <= IMAGE_DISTANCE)

    def keys() -> Iterator[Keys]:
        edges = [64 * cut // _PIECES for cut in range(_PIECES + 1)]
        masks = [(1 << end) - (1 << start) for start, end in pairwise(edges)]
        for chosen in combinations(masks, _SHARED):
            yield hashes & np.uint64(sum(chosen))

    return near_groups(len(hashes), keys(), are_near)


def near_groups(
    count: int, keys: Iterable[Keys], are_near: Callable[[Numbers, Numbers], NDArray[np.bool_]]
) -> Numbers:
    """Puts things that are near into groups.

    Of those that share a key, each is compared with the first, and what is not near it with the next that is not: so
    groups are compared by their first things, and the far ends of a chain of near things may be groups of their own.

    Args:
        count: How many things there are.
        keys: The things' keys, one of each at a time.
        are_near: Compares the things at some places with those at others.

    Returns:
        For each thing the place of the first of its group; groups that have a thing in common are one.
    """
    if not count:
        return np.empty(0, dtype=np.int64)
    graph: Any = import_extra("scipy.sparse", extra="synth", needed_for="finding near-duplicates")
    csgraph: Any = import_extra("scipy.sparse.csgraph", extra="synth", needed_for="finding near-duplicates")
    pairs = [np.empty((2, 0), dtype=np.int64), *(pair for key in keys for pair in _near_pairs(key, are_near))]
    some, others = np.concatenate(pairs, axis=1)
    links = graph.coo_array((np.ones(len(some), dtype=np.int8), (some, others)), shape=(count, count))
    _, labels = csgraph.connected_components(links, directed=False)
    _, firsts, of_label = np.unique(labels, return_index=True, return_inverse=True)
    return np.asarray(firsts[of_label], dtype=np.int64)


def _near_pairs(key: Keys, are_near: Callable[[Numbers, Numbers], NDArray[np.bool_]]) -> Iterator[Numbers]:
    """Compares all things of a key with the first of them, then those that are not near it with the first of these."""
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    is_same = np.concatenate([[False], ordered[1:] == ordered[:-1], [False]])
    order = order[is_same[1:] | is_same[:-1]]  # most things share their key with none
    del ordered, is_same
    while len(order):
        begins = np.concatenate([[True], key[order[1:]] != key[order[:-1]]])
        firsts = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
        some, others = firsts[~begins], order[~begins]
        near = are_near(some, others)
        yield np.stack([some[near], others[near]])
        order = others[~near]
