"""How many restarts are too many, and how long to wait before the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec


class Backoff(msgspec.Struct, frozen=True):
    """Seconds before a restart: none before the window's first, then doubling from `first_s` to `longest_s`.

    >>> [Backoff(0.1, 0.5).delay_s(recent) for recent in (1, 2, 3, 4, 9)]
    [0.0, 0.1, 0.2, 0.4, 0.5]
    """

    first_s: float = 0.1
    longest_s: float = 1.0

    def delay_s(self, recent: int) -> float:
        """Seconds to wait before restart number `recent` of the current window."""
        return 0.0 if recent <= 1 else float(min(self.longest_s, self.first_s * 2.0 ** min(recent - 2, 30)))


class Intensity:
    """Counts restarts in a sliding window of `max_seconds`."""

    def __init__(self, max_restarts: int, max_seconds: float, clock: Callable[[], float]) -> None:
        self.max_restarts, self.max_seconds, self._clock = max_restarts, max_seconds, clock
        self._stamps: deque[float] = deque()

    def charge(self) -> int:
        """Note one restart now; return how many the window holds."""
        now = self._clock()
        self._stamps.append(now)
        while self._stamps[0] <= now - self.max_seconds:
            self._stamps.popleft()
        return len(self._stamps)
