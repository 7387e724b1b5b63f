"""What an experiment found: checks, figures, invariants, each with its evidence."""

from __future__ import annotations

from typing import Literal

import msgspec

INVARIANTS = {
    "I1": "each accepted request gets exactly one terminal answer by its deadline + 1 s",
    "I2": "accepted = answered + dead-lettered",
    "I3": "what is computed twice has the same bytes",
    "I4": "each answer belongs to its own input: seed echoed, bytes equal to a fault-free run",
    "I5": "/readyz is truthful within 1 s",
    "I6": "queue and memory stay under their bounds",
    "I7": "the exit code is not 0 after an unplanned death, and 0 after a planned end",
}


class Check(msgspec.Struct, frozen=True):
    """A claim, whether it held, and the evidence."""

    name: str
    held: bool
    detail: str


class Figure(msgspec.Struct, frozen=True):
    """A measured figure beside the asked one.

    Args:
        sense: whether the figure must be at most or at least what is asked.
        bound: what decides: what was asked, or more patience for a machine that does other work meanwhile.
    """

    name: str
    value: float
    unit: str
    asked: float
    sense: Literal["at most", "at least"]
    bound: float

    @property
    def held(self) -> bool:
        """Whether the figure is within the bound."""
        return self.value <= self.bound if self.sense == "at most" else self.value >= self.bound

    def __str__(self) -> str:
        sign = "<=" if self.sense == "at most" else ">="
        return f"{self.name} {self.value:.4g} {self.unit} (asked {sign} {self.asked:.4g})"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment, once.

    Args:
        broker: where work queued.
        seed: what its random moments were drawn from.
        invariants: by name; one that has nothing to say here is missing.
    """

    experiment: int
    fault: str
    expected: str
    broker: str
    seed: int
    requests: int
    errors: int
    death_seen_s: float | None
    recovery_s: float | None
    elapsed_s: float
    checks: list[Check]
    figures: list[Figure]
    invariants: dict[str, Check]

    @property
    def ok(self) -> bool:
        """Whether everything held."""
        return not self.failures()

    def failures(self) -> list[str]:
        """What did not hold, in words."""
        checks = [f"{c.name}: {c.detail}" for c in (*self.checks, *self.invariants.values()) if not c.held]
        return checks + [str(figure) for figure in self.figures if not figure.held]
