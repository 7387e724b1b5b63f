"""`bench serve`: real servers, answers checked before they are timed, one row per claim."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

from triptych.bench.load import Burst, Target
from triptych.errors import TriptychError

serve = import_module("triptych.bench.serve")  # the package has a function of that name


@pytest.mark.timeout(180)
def test_every_row_has_both_sides_and_its_answers_were_compared() -> None:
    rows = serve.compare_serving(rounds=1, round_s=1)
    assert [row.claim.split(",")[1] for row in rows] == [
        f" one sample per request as {form}" for form in ("JSON", "JSON", "npy", "npy")
    ]
    for row in rows:
        document = row.document()
        assert document["ratio"] > 0
        assert "within" in document["equal"]
        for side in ("reference", "ours"):
            assert set(document["details"][side]) == {"requests_per_second", "p99_ms"}


def test_a_row_is_the_median_of_its_pairs_and_the_share_of_the_slowest() -> None:
    bursts = {
        "reference json": [Burst(100.0, 40.0), Burst(200.0, 40.0), Burst(100.0, 40.0)],
        "ours json": [Burst(800.0, 10.0), Burst(800.0, 10.0), Burst(600.0, 10.0)],
    }
    row = serve.comparison(serve.ROWS[0], bursts, "equal")
    assert row.ratio == pytest.approx(6.0)
    assert row.details["p99_share"] == pytest.approx(0.25)


def test_a_server_that_answers_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "samples", lambda _: np.zeros((1, 1, 28, 28), np.float32))
    with pytest.raises(TriptychError, match="not what the model decodes"):
        serve.check_answers({"ours json": Target("http://127.0.0.1:1", serve.BODY)})
