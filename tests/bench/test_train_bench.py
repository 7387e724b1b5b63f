"""The training claims compare what both sides reached before they time them."""

import pytest

from triptych.bench import textbook
from triptych.bench.textbook import Trained, by_trainer, compare, seconds_of_steps
from triptych.errors import TriptychError
from triptych.learn import VAE, datasets


def sides(*seconds: float):
    remaining = iter(seconds)
    return lambda: Trained(None, next(remaining), {"compile_s": 3.0})


def claim(theirs, mine, reached):
    values = iter(reached)
    return compare("c", "r", theirs, mine, lambda _: next(values), what="loss", gate=0.5, steps=10)


def test_sides_that_reached_different_results_are_not_timed() -> None:
    with pytest.raises(TriptychError, match=r"loss 1\.0000 and 2\.0000"):
        claim(sides(1.0), sides(1.0), (1.0, 2.0))


def test_the_first_pair_warms_up_and_the_ratio_is_the_median_of_the_others() -> None:
    (made,) = claim(sides(9.0, 4.0, 6.0, 8.0), sides(9.0, 2.0, 2.0, 2.0), (1.0, 1.2))
    assert made.ratio == 3.0
    assert made.details["ours_steps_per_second"] == 5.0
    assert made.details["compile_pays_after_runs"] == 3.0 / 4.0


def test_the_rate_of_steps_leaves_out_what_is_before_the_first_and_after_the_last_row() -> None:
    history = [{"split": "validation", "elapsed_s": 0.0}]
    history += [{"split": "train", "step": step, "elapsed_s": 50.0 + step} for step in (10, 20, 30)]
    assert seconds_of_steps(history) == 30.0


def test_our_side_says_which_path_it_took(monkeypatch) -> None:
    monkeypatch.setattr(textbook, "fast_path", lambda: {"compile": False, "precision": "f32"})
    model = VAE(VAE.Config(sample_shape=(1, 8, 8), hidden=(8,), latent_dim=2))
    trained = by_trainer(model, datasets.digits(), 120, steps_only=True, batch_size=8)
    assert trained.details == {"compile": False, "precision": "f32", "compile_s": 0.0}
    assert 0 < trained.seconds < 30
