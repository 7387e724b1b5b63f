"""Every experiment once, on each broker it applies to."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from triptych.serve.chaos.experiments import EXPERIMENTS
from triptych.serve.chaos.stage import Stage

RUNS = [(broker, e.number) for e in EXPERIMENTS.values() if not e.is_long for broker in sorted(e.brokers)]


@pytest.mark.parametrize(("broker", "number"), sorted(RUNS))
def test_nothing_is_lost(stage_of: Callable[[str], Stage], broker: str, number: int) -> None:
    outcome = EXPERIMENTS[number].perform(stage_of(broker), seed=0)
    assert outcome.failures() == []
    assert outcome.checks or outcome.invariants
