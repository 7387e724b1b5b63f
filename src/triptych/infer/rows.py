"""Batches come in a few sizes only: those at which a row's bytes do not depend on its neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

Array = np.ndarray


def bucket(rows: int, buckets: Sequence[int]) -> int:
    """The batch size for `rows` rows: the smallest that holds them, or the largest there is.

    >>> bucket(3, (2, 4, 8)), bucket(100, (2, 4, 8))
    (4, 8)
    """
    return min((size for size in buckets if size >= rows), default=max(buckets))


def split(rows: int, buckets: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """Cut `rows` rows into batches: which rows, and the size to pad them to.

    >>> list(split(11, (2, 4, 8)))
    [(slice(0, 8, None), 8), (slice(8, 11, None), 4)]
    """
    start = 0
    while start < rows:
        size = bucket(rows - start, buckets)
        yield slice(start, min(start + size, rows)), size
        start += size


def pad(array: Array, rows: int) -> Array:
    """`array` with rows of zeros after it, `rows` in all."""
    if len(array) == rows:
        return array
    padded = np.zeros((rows, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded
