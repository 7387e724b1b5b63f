"""Watching a server through an experiment: is its readiness true, its queue short, its memory bounded?"""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from statistics import linear_regression

from triptych.serve.chaos import process
from triptych.serve.chaos.server import Server

EVERY_S = 0.1


@dataclass(frozen=True)
class Look:
    """One look at `/readyz`; `ready` is False also when nobody answered."""

    asked_at_s: float
    elapsed_s: float
    ready: bool


@dataclass
class Watch:
    """A thread that asks `/readyz` and `/healthz`, and reads the memory of root and node, ten times a second.

    Attributes:
        looks: all looks at `/readyz`.
        truths: from which moment on the server was ready, was not, or (None) either may be said.
        deepest, capacity: the longest queue seen, and the longest allowed.
        memory: (moment, resident bytes of root and node together), all looks.
        first_bytes, most_bytes: resident memory of root and node together, at the beginning and at most.
    """

    server: Server
    looks: list[Look] = field(default_factory=list)
    truths: list[tuple[float, bool | None]] = field(default_factory=list)
    deepest: int = 0
    capacity: int = 0
    memory: list[tuple[float, int]] = field(default_factory=list)
    first_bytes: int = 0
    most_bytes: int = 0

    def __enter__(self) -> Watch:
        self._over = threading.Event()
        self.expect(True)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def expect(self, ready: bool | None) -> None:
        """From now on this is the truth, which `/readyz` has a second to tell; None: either may be said."""
        self.truths.append((time.monotonic(), ready))

    def settled(self, within_s: float) -> list[tuple[Look, bool]]:
        """Each look that was asked `within_s` after the truth had changed, or later, and what was true."""
        judged = [(look, self._truth_of(look, within_s)) for look in self.looks]
        return [(look, truth) for look, truth in judged if truth is not None]

    def slope(self) -> float:
        """By how many bytes a second the memory of root and node grew, after a first fifth to warm up."""
        times, used = zip(*self.memory[len(self.memory) // 5 :], strict=True)
        return linear_regression(times, used).slope

    def _truth_of(self, look: Look, within_s: float) -> bool | None:
        """What was true all the while, and a while before; None if that changed or is not known."""
        ended_s = look.asked_at_s + look.elapsed_s
        if any(look.asked_at_s - within_s < since_s <= ended_s for since_s, _ in self.truths[1:]):
            return None
        return [truth for since_s, truth in self.truths if since_s <= ended_s][-1]

    def _run(self) -> None:
        while not self._over.wait(EVERY_S):
            self._look()
            self._measure()

    def _look(self) -> None:
        asked_s = time.monotonic()
        ready = False
        try:
            ready = self.server.fetch("/readyz")[0] == 200
            queue = json.loads(self.server.fetch("/healthz")[1])["queue"]
            self.deepest, self.capacity = max(self.deepest, queue["depth"]), queue["capacity"]
        except (OSError, http.client.HTTPException):
            pass
        self.looks.append(Look(asked_s, time.monotonic() - asked_s, ready))

    def _measure(self) -> None:
        own = [self.server.pid, *process.children(self.server.pid)[:1]]
        used = sum(map(process.rss_bytes, own))
        self.memory.append((time.monotonic(), used))
        self.first_bytes = self.first_bytes or used
        self.most_bytes = max(self.most_bytes, used)
