"""`bench serve` beyond capacity: requests come at a fixed rate, and each is counted by what became of it."""

from __future__ import annotations

import pytest

from triptych.bench import overload
from triptych.bench.arrivals import Seen, at


@pytest.mark.timeout(120)
def test_answers_and_refusals_are_counted_apart() -> None:
    (row,) = overload.compare_overload(rounds=1, round_s=1)
    details = row.document()["details"]
    assert details["answered"] > 0
    asked = details["answered"] + details["refused"] + details["others"]
    assert asked == pytest.approx(3 * details["capacity_per_s"], rel=0.01, abs=1)
    assert row.ratio > 0
    assert 0 <= details["refused_ms"]["p50"] <= details["refused_ms"]["p99"]


def test_a_row_is_the_median_of_its_rounds() -> None:
    seen = [Seen(90, 200, 1, (1.0, 20.0, 30.0), 2.0, 1.0), Seen(80, 200, 0, (3.0, 40.0, 50.0), 4.0, 1.0)]
    row = overload.comparison([100.0, 100.0], seen, [0.1, 0.3])
    assert row.ratio == pytest.approx(0.85)
    assert row.details["refused_ms"] == {"p50": 2.0, "p99": 30.0, "p99.9": 40.0}
    assert row.details["node_waited_for_a_core"] == pytest.approx(0.2)
    assert "1 neither" in row.equal


def test_a_share_of_sorted_values() -> None:
    assert [at([1.0, 2.0, 3.0, 4.0], share) for share in (0.0, 0.5, 0.99)] == [1.0, 3.0, 4.0]
    assert at([], 0.5) == 0.0
