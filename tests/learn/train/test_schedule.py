"""The learning rate stays within its bounds, rises while warming up, and falls to nothing."""

from hypothesis import given
from hypothesis import strategies as st

from triptych.learn.train import TrainSettings
from triptych.learn.train.schedule import rate_factor


@given(st.integers(1, 500), st.integers(0, 600), st.sampled_from(["warmup_cosine", "warmup_linear"]))
def test_warmup_rises_then_the_rate_falls(total: int, warmup: int, schedule: str) -> None:
    settings = TrainSettings(schedule=schedule, warmup_steps=warmup)
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
    linear = TrainSettings(schedule="warmup_linear", warmup_steps=20)
    assert [rate_factor(linear, step, 100) for step in (0, 19, 20, 60, 100)] == [0.05, 1, 1, 0.5, 0]
