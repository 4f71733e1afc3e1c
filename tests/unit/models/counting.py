"""Numbers that count how often they are multiplied: what a definition costs, counted by doing it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Tally:
    """How many products were made."""

    products: int = 0


_OPEN: list[Tally] = []


class Number(float):
    """A float whose products are counted; sums of products are Numbers again."""

    def __mul__(self, other: float) -> Number:
        for tally in _OPEN:
            tally.products += 1
        return Number(float.__mul__(self, other))

    def __add__(self, other: float) -> Number:
        return Number(float.__add__(self, float(other)))

    __radd__ = __add__


@contextmanager
def counting() -> Iterator[Tally]:
    """Count the products made within."""
    tally = Tally()
    _OPEN.append(tally)
    try:
        yield tally
    finally:
        _OPEN.remove(tally)


def numbers(array: Any) -> Any:
    """The array with Numbers for its elements."""
    made = np.empty(np.shape(array), dtype=object)
    for index in np.ndindex(made.shape):
        made[index] = Number(np.asarray(array)[index])
    return made


def floats(array: Any) -> Any:
    """The array with plain floats again, whose products nobody counts."""
    return np.asarray(array).astype(np.float64)


def times(left: Any, right: Any) -> Any:
    """The matrix product, element by element, of arrays of any kind; the result is plain."""
    return floats(np.matmul(numbers(left), numbers(right)))
