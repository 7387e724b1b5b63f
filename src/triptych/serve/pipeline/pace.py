"""The pace at which work leaves while more of it waits, and so how long what waits will take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

WINDOW_S = 2.0


class Pace:
    """Messages that leave per second, measured only where work waits behind those that are being done.

    Then every batch processor is busy with batches as large as they get. A quiet server does fewer messages
    than it could: its pace says nothing of a crowd, and is not taken for one. By Little's law a queue of
    `ahead` messages, first in first out, is through after `ahead` divided by the pace. Those that leave
    because they expire count as well: nobody behind them waits for them either.

    The measure is a mean in which time passed counts for 1/e as much `WINDOW_S` of measured time later.

    Args:
        gone: how many messages have left so far.
        is_waiting: whether work waits behind what is being done.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        gone: Callable[[], int],
        is_waiting: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gone, self._is_waiting, self._clock = gone, is_waiting, clock
        self._was_waiting, self._noted_at_s, self._noted = False, 0.0, 0
        self._left = self._elapsed_s = 0.0

    def note(self) -> None:
        """A batch was done just now."""
        now_s, gone, waits = self._clock(), self._gone(), self._is_waiting()
        if waits and self._was_waiting:
            elapsed_s = now_s - self._noted_at_s
            kept = math.exp(-elapsed_s / WINDOW_S)
            self._left = self._left * kept + gone - self._noted
            self._elapsed_s = self._elapsed_s * kept + elapsed_s
        self._was_waiting, self._noted_at_s, self._noted = waits, now_s, gone

    def wait_s(self, ahead: int) -> float:
        """Seconds until `ahead` messages have left; 0 while nothing was measured."""
        return ahead * self._elapsed_s / self._left if self._left else 0.0
