"""Random choices that follow from a name, the same on every machine, in every process and in every order.

Built on the one method of Python's generator whose sequence is promised to stay. Knows nothing of scenes.
"""

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

Value = TypeVar("Value")


class Draws:
    """A stream of random choices.

    Args:
        name: What the choices are for; the same name makes the same choices.
    """

    def __init__(self, name: str) -> None:
        self._next = random.Random(int.from_bytes(hashlib.sha256(name.encode()).digest())).random

    def between(self, low: float, high: float) -> float:
        """A number from low to high."""
        return low + (high - low) * self._next()

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self._next() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True as often as asked for."""
        return self._next() < probability

    def one_of(self, values: Sequence[Value]) -> Value:
        """One of the values.

        Raises:
            ValueError: If there are none.
        """
        if not values:
            raise ValueError("nothing to choose from")
        return values[self.integer(0, len(values) - 1)]

    def phrase(self, forms: Sequence[str], **words: object) -> str:
        """One of several ways to say the same, filled with words."""
        return self.one_of(forms).format(**words)

    def some_of(self, values: Sequence[Value], count: int) -> list[Value]:
        """So many different ones of the values, in random order.

        Raises:
            ValueError: If there are fewer.
        """
        if count > len(values):
            raise ValueError(f"asked for {count} of {len(values)} values")
        return self.shuffled(values)[:count]

    def others(self, values: Iterable[Value], right: Value) -> tuple[Value, ...]:
        """Three different ones of the values, none of them this one: wrong answers.

        Raises:
            ValueError: If there are fewer.
        """
        return tuple(self.some_of([value for value in values if value != right], 3))

    def shuffled(self, values: Sequence[Value]) -> list[Value]:
        """All values in random order."""
        order = list(values)
        for last in range(len(order) - 1, 0, -1):
            other = self.integer(0, last)
            order[last], order[other] = order[other], order[last]
        return order
