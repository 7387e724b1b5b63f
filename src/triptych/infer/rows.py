"""Batches come in a few sizes only: those at which a row's bytes do not depend on its neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

Array = np.ndarray

CHEAP_PADDING = 4  # starting one more batch costs about as much as this many rows of a small decoder
CHEAP_SHARE = 32  # one part in so many more costs less than the several batches that would add up to the rows


def bucket(rows: int, buckets: Sequence[int], most_padding: int) -> int:
    """The batch size to begin with for `rows` rows.

    The smallest that holds them all, unless that means more than `most_padding` rows of zeros; then the
    largest that they fill.

    >>> bucket(3, (2, 4, 8), 2), bucket(5, (2, 4, 8), 2), bucket(100, (2, 4, 8), 2), bucket(1, (4, 8), 2)
    (4, 4, 8, 4)
    """
    above = min((size for size in buckets if size >= rows), default=None)
    below = max((size for size in buckets if size <= rows), default=None)
    if above is not None and (below is None or above - rows <= most_padding):
        return above
    assert below is not None  # every size is above or below
    return below


def cheap_padding(rows: int) -> int:
    """How many rows of zeros may be computed beside `rows` rows, to start fewer batches.

    >>> [size for _, size in split(1000, (1, 8, 32, 64, 128, 256, 512, 1024), cheap_padding(1000))]
    [1024]
    """
    return max(CHEAP_PADDING, rows // CHEAP_SHARE)


def split(
    rows: int, buckets: Sequence[int], most_padding: int = CHEAP_PADDING
) -> Iterator[tuple[slice, int]]:
    """Cut `rows` rows into batches: which rows, and the size to pad them to.

    >>> list(split(13, (2, 4, 8)))
    [(slice(0, 8, None), 8), (slice(8, 13, None), 8)]
    """
    start = 0
    while start < rows:
        size = bucket(rows - start, buckets, most_padding)
        yield slice(start, min(start + size, rows)), size
        start += size


def cut(array: Array, held: slice, rows: int) -> Array:
    """The rows `held` of an input, as `pad` fills them up; a scalar is for all rows."""
    return pad(array[held], rows) if array.ndim else array


def pad(array: Array, rows: int) -> Array:
    """`array` with rows of zeros after it, `rows` in all."""
    if len(array) == rows:
        return array
    padded = np.zeros((rows, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded
