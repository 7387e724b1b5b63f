"""Laws of the pace: measured under load alone, and forgotten as it changes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.serve.pipeline.pace import WINDOW_S, Pace


class Crowd:
    """A clock, and whether work waits."""

    def __init__(self) -> None:
        self.now_s, self.waits, self.gone = 100.0, True, 0
        self.pace = Pace(lambda: self.gone, lambda: self.waits, lambda: self.now_s)

    def does(self, count: int, elapsed_s: float, *, waits: bool = True) -> None:
        self.now_s += elapsed_s
        self.waits = waits
        self.gone += count
        self.pace.note()


def test_nothing_is_known_before_work_has_waited_from_one_batch_to_the_next() -> None:
    crowd = Crowd()
    crowd.does(8, 1.0, waits=False)
    crowd.does(8, 1.0)
    crowd.does(8, 1.0, waits=False)
    assert crowd.pace.wait_s(1000) == 0
    crowd.does(8, 1.0)
    crowd.does(8, 1.0)
    assert crowd.pace.wait_s(1000) == pytest.approx(125)


@given(st.floats(0.1, 1e5), st.lists(st.integers(1, 256), min_size=1, max_size=40), st.integers(0, 5000))
def test_a_steady_pace_is_found_whatever_the_batches(
    per_second: float, batches: list[int], ahead: int
) -> None:
    crowd = Crowd()
    crowd.does(1, 0.0)
    for count in batches:
        crowd.does(count, count / per_second)
    assert crowd.pace.wait_s(ahead) == pytest.approx(ahead / per_second, rel=1e-6)


def test_a_quiet_time_does_not_count_as_a_slow_one() -> None:
    crowd = Crowd()
    for _ in range(10):
        crowd.does(10, 0.1)
    crowd.does(1, 0.001, waits=False)
    crowd.does(1, 3600.0, waits=False)
    crowd.does(1, 3600.0)
    assert crowd.pace.wait_s(100) == pytest.approx(1.0)


@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_a_former_pace_is_forgotten(before_s: float, after_s: float) -> None:
    crowd = Crowd()
    crowd.does(1, 0.0)
    for batch_s in (before_s, after_s):
        for _ in range(math.ceil(10 * WINDOW_S / batch_s)):
            crowd.does(8, batch_s)
    assert crowd.pace.wait_s(8) == pytest.approx(after_s, rel=0.01)
