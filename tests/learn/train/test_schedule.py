"""The learning rate stays within its bounds, rises while warming up, and falls to nothing by the cosine."""

from hypothesis import given
from hypothesis import strategies as st

from triptych.learn.train import TrainSettings
from triptych.learn.train.schedule import rate_factor


@given(st.integers(1, 500), st.integers(0, 600))
def test_warmup_rises_then_the_cosine_falls(total: int, warmup: int) -> None:
    settings = TrainSettings(schedule="warmup_cosine", warmup_steps=warmup)
    factors = [rate_factor(settings, step, total) for step in range(total)]
    turn = min(warmup, total)
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[:turn] == sorted(factors[:turn])
    assert factors[turn:] == sorted(factors[turn:], reverse=True)


def test_known_points() -> None:
    cosine = TrainSettings(schedule="cosine")
    assert rate_factor(cosine, 0, 100) == 1
    assert abs(rate_factor(cosine, 50, 100) - 0.5) < 1e-12
    assert rate_factor(cosine, 100, 100) < 1e-12
    assert rate_factor(TrainSettings(), 99, 100) == 1
