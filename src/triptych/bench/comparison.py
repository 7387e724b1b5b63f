"""Timing two sides of a claim by turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Comparison:
    """Seconds of the reference and of ours, pair by pair, and what else must be known to read them."""

    claim: str
    reference: str
    ours: str
    threads: int
    reference_s: list[float]
    ours_s: list[float]
    equal: str
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """How many times faster ours is: the median over pairs."""
        return statistics.median(r / o for r, o in zip(self.reference_s, self.ours_s, strict=True))

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        medians = {
            "reference_median_s": statistics.median(self.reference_s),
            "ours_median_s": statistics.median(self.ours_s),
        }
        return {**asdict(self), **medians, "ratio": self.ratio}

    def cells(self) -> Sequence[str]:
        """For the table."""
        times = [f"{statistics.median(side) * 1000:.2f} ms" for side in (self.reference_s, self.ours_s)]
        return self.claim, *times, f"{self.ratio:.2f}x", str(self.threads), self.equal


class Result(Protocol):
    """What a bench found."""

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        ...

    def cells(self) -> Sequence[str]:
        """For the table: claim, reference, ours, ratio, threads, how the two sides agree."""
        ...


def by_turns(
    reference: Callable[[], object],
    ours: Callable[[], object],
    *,
    repeats: int,
    calls: int = 1,
    settle_s: float = 0.0,
) -> tuple[list[float], list[float]]:
    """Seconds per call of each side: `repeats` turns of `calls` calls, after one of each to warm up.

    Args:
        settle_s: for so long the side whose turn it is first runs untimed. Threads of the other side still
            spin for some milliseconds after its last call, and its data fills the caches.
    """
    sides = reference, ours
    taken: tuple[list[float], list[float]] = ([], [])
    for side in sides:
        side()
    for turn in range(repeats):
        for number in (0, 1) if turn % 2 else (1, 0):
            settle(sides[number], settle_s)
            taken[number].append(_seconds(sides[number], calls))
    return taken[0], taken[1]


def settle(side: Callable[[], object], seconds: float) -> None:
    """Run a side for some time."""
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        side()


def _seconds(side: Callable[[], object], calls: int) -> float:
    started_s = time.perf_counter()
    for _ in range(calls):
        side()
    return (time.perf_counter() - started_s) / calls
