"""The pace at which work is done while more of it waits, and so how long what waits will take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

WINDOW_S = 2.0


class Pace:
    """Messages done per second, measured only where work waits behind those that are being done.

    Then every batch processor is busy with batches as large as they get. A quiet server does fewer messages
    than it could: its pace says nothing of a crowd, and is not taken for one. By Little's law a queue of
    `ahead` messages, first in first out, is through after `ahead` divided by the pace.

    The measure is a mean in which time passed counts for 1/e as much `WINDOW_S` of measured time later.

    Args:
        is_waiting: whether work waits behind what is being done.
        clock: seconds that never go back.
    """

    def __init__(self, is_waiting: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._is_waiting, self._clock = is_waiting, clock
        self._was_waiting, self._noted_at_s = False, 0.0
        self._done = self._elapsed_s = 0.0

    def note(self, count: int) -> None:
        """`count` messages were done just now."""
        now_s, waits = self._clock(), self._is_waiting()
        if waits and self._was_waiting:
            elapsed_s = now_s - self._noted_at_s
            kept = math.exp(-elapsed_s / WINDOW_S)
            self._done = self._done * kept + count
            self._elapsed_s = self._elapsed_s * kept + elapsed_s
        self._was_waiting, self._noted_at_s = waits, now_s

    def wait_s(self, ahead: int) -> float:
        """Seconds until `ahead` messages are done; 0 while nothing was measured."""
        return ahead * self._elapsed_s / self._done if self._done else 0.0
