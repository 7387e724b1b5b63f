"""What a seed means: the noise of a sample, as a pure function of (seed, index, domain).

Noise is part of the bundle's contract, not of an engine: sample number `index` of seed `seed` is drawn from
its own Philox-4x64-10 stream, whose key is (seed, index) and whose counter starts at (0, 0, 0, domain). No
stream is ever shared, so a sample does not depend on its neighbours in a batch, on the worker that drew it,
or on being drawn again.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; numpy's `Philox` is that generator,
and `Generator.standard_normal` its ziggurat.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.random import Generator, Philox

from triptych.errors import InputError

MAX_SEED = 2**63 - 1
LATENT, TOKEN, POSTERIOR = 0, 1, 2  # domains: two uses of one seed never see the same numbers
MIN_TRUNCATION = 0.1  # below it nearly every draw would be thrown away

Array = np.ndarray


def check_seed(seed: int, where: str = "seed") -> int:
    """Return `seed` if it is an integer in [0, 2**63 - 1], else raise `InputError`."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed <= MAX_SEED:
        raise InputError(f"got {seed!r}", where=where, valid=f"an integer from 0 to {MAX_SEED}")
    return int(seed)


def stream(seed: int, index: int, domain: int) -> Generator:
    """The generator of sample `index` of `seed`; every call starts it from the beginning."""
    key = np.array([check_seed(seed), index], dtype=np.uint64)
    counter = np.array([0, 0, 0, domain], dtype=np.uint64)
    return Generator(Philox(key=key, counter=counter))


def normal(
    seeds: Sequence[int],
    indices: Sequence[int],
    shape: tuple[int, ...],
    *,
    domain: int = LATENT,
    truncation: float | None = None,
) -> Array:
    """Standard normal rows, float32, shape (len(seeds), *shape): row r belongs to (seeds[r], indices[r]).

    Args:
        truncation: numbers further than this from 0 are drawn again, from the same stream, until none is.
            Source: Brock et al. 2019, arXiv:1809.11096, section 3.1.

    >>> a = normal([7, 7], [0, 1], (3,))
    >>> bool((normal([9, 7], [5, 1], (3,))[1] == a[1]).all())
    True
    """
    limit = check_truncation(truncation)
    rows = np.empty((len(seeds), *shape), dtype=np.float32)
    philox = Philox(0)
    generator = Generator(philox)
    start: dict[str, tuple[int, ...]] = {"counter": (0, 0, 0, domain)}
    state: Any = {**philox.state, "state": start, "buffer": (0, 0, 0, 0)}  # tuples: read faster than arrays
    for row, seed, index in zip(rows, seeds, indices, strict=True):
        start["key"] = check_seed(seed), index
        philox.state = state
        generator.standard_normal(out=row, dtype=np.float32)
        while limit is not None and (beyond := np.abs(row) > limit).any():
            row[beyond] = generator.standard_normal(int(beyond.sum()), dtype=np.float32)
    return rows


def check_truncation(truncation: float | None) -> float | None:
    """Return `truncation` if it is a number from `MIN_TRUNCATION` on, or None; else raise `InputError`."""
    if truncation is None:
        return None
    number = isinstance(truncation, int | float | np.number) and not isinstance(truncation, bool)
    if number and truncation >= MIN_TRUNCATION:
        with suppress(OverflowError):  # an integer beyond the numbers of a float
            return float(truncation)
    valid = f"a number from {MIN_TRUNCATION} on, or None for the whole normal distribution"
    raise InputError(f"got {truncation!r}", where="truncation", valid=valid)
