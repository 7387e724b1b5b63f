"""Every experiment once."""

from __future__ import annotations

import pytest

from triptych.serve.chaos.experiments import EXPERIMENTS
from triptych.serve.chaos.stage import Stage


@pytest.mark.parametrize("number", [number for number, e in EXPERIMENTS.items() if not e.is_long])
def test_nothing_is_lost(stage: Stage, number: int) -> None:
    outcome = EXPERIMENTS[number].perform(stage, seed=0)
    assert outcome.failures() == []
    assert outcome.checks
