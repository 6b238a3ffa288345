"""Seeded permutations of any size, computed for the numbers asked for: nothing is stored, nothing is shuffled.

A Feistel network on a square just large enough, walked until the result is inside the size. Made of 64-bit integer
arithmetic alone, so every machine and every version of numpy computes the same. Not cryptography.
"""

import functools
import hashlib
import math

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
_FIRST_FACTOR = np.uint64(0xBF58476D1CE4E5B9)  # the finaliser of splitmix64
_SECOND_FACTOR = np.uint64(0x94D049BB133111EB)


def permuted(numbers: NDArray[np.int64], size: int, label: str) -> NDArray[np.int64]:
    """Returns where a permutation of 0 ... size - 1 sends some numbers.

    Args:
        numbers: each from 0 to size, exclusive.
        size: of the permutation.
        label: names the permutation; another label gives another one.
    """
    side = np.uint64(math.isqrt(size - 1) + 1)
    keys = _keys(label)
    values = _rounds(numbers.astype(np.uint64), side, keys)
    outside = np.flatnonzero(values >= size)
    while len(outside):
        values[outside] = _rounds(values[outside], side, keys)
        outside = outside[values[outside] >= size]
    return values.astype(np.int64)


def shuffled(values: NDArray[np.int64], label: str) -> NDArray[np.int64]:
    """Returns the values in an order decided by the label."""
    return values[permuted(np.arange(len(values)), len(values), label)]


def hashed(label: str) -> int:
    """Returns 64 bits that depend on the label alone, the same in every process."""
    return int.from_bytes(hashlib.sha256(label.encode("utf-8", "surrogatepass")).digest()[:8], "little")


@functools.lru_cache(maxsize=256)
def _keys(label: str) -> NDArray[np.uint64]:
    return np.array([hashed(f"{label}/{number}") for number in range(_ROUNDS)], dtype=np.uint64)


def _rounds(values: NDArray[np.uint64], side: np.uint64, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One pass of the network over the numbers below side * side."""
    left, right = values // side, values % side
    for key in keys:
        left, right = right, (left + _mixed(right, key) % side) % side
    return left * side + right


def _mixed(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    mixed = values ^ key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST_FACTOR
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND_FACTOR
    return mixed ^ (mixed >> np.uint64(31))
