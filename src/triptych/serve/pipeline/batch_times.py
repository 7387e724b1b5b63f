"""How long a batch takes, as far as the last ones tell."""

from __future__ import annotations

import math

SLOWER = 1.05  # how much slower than the fastest batch of its size the next one may be, and be the measure


class BatchTimes:
    """What a row took in the fastest of the last batches, for each size: a row of a full batch takes less
    than a row alone. Sizes up to the next power of two are one.
    """

    def __init__(self) -> None:
        self._row_s: dict[int, float] = {}

    def note(self, rows: int, elapsed_s: float) -> None:
        """A batch of so many rows took so long."""
        size = rows.bit_length()
        self._row_s[size] = min(elapsed_s / rows, self._row_s.get(size, math.inf) * SLOWER)

    def of(self, rows: int) -> float:
        """What a batch of so many rows may be expected to take, in seconds, rather too little; 0 while
        nothing is known.
        """
        smaller = [row_s for size, row_s in self._row_s.items() if size <= rows.bit_length()]
        return rows * min(smaller or self._row_s.values(), default=0.0)
