"""Laws of coverage, spread, active units, modes and the critic's balance."""

import pytest
import torch

from triptych.learn.maths.adversarial import gradient_penalty, overfitting, slope
from triptych.learn.maths.support import active, covered, high_quality, modes_hit, spread

CORNERS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)


def cloud(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_samples_of_the_same_distribution_cover_all_but_two_to_the_minus_k() -> None:
    for neighbours, expected in ((1, 0.5), (5, 1 - 2**-5)):
        share = covered(cloud(1500, 0), cloud(1500, 1), neighbours).double().mean()
        assert share.item() == pytest.approx(expected, abs=0.03)


def test_the_data_cover_themselves_and_a_far_cloud_covers_nothing() -> None:
    x = cloud(50, 0)
    assert covered(x, x, 5).all()
    assert not covered(x, x + 100, 5).any()


def test_coverage_counts_the_modes_that_are_reached() -> None:
    corner = CORNERS.repeat_interleave(25, 0) + 0.01 * cloud(100, 2)[:, :2]
    assert covered(corner, corner[:50], 5).double().mean() == pytest.approx(0.5)


def test_the_spread_of_a_unit_square_is_the_mean_of_its_sides_and_diagonals() -> None:
    assert spread(CORNERS).item() == pytest.approx((4 + 2 * 2**0.5) / 6)
    assert spread(3 * CORNERS).item() == pytest.approx(3 * spread(CORNERS).item())
    assert spread(torch.ones(9, 2)) == 0


def test_a_latent_is_active_when_its_mean_moves_with_x() -> None:
    mean = torch.stack([torch.linspace(-1, 1, 20), torch.full((20,), 5.0), 0.05 * cloud(20, 3)[:, 0]], dim=1)
    assert active(mean).tolist() == [True, False, False]
    assert active(mean, threshold=1e-4).tolist() == [True, False, True]


def test_a_mode_is_hit_by_a_sample_within_three_deviations() -> None:
    x = torch.tensor([[0.0, 0.299], [0.0, 0.301], [1.0, 1.0], [1.0, 0.9]], dtype=torch.float64)
    assert high_quality(x, CORNERS, 0.1).tolist() == [True, False, True, True]
    assert modes_hit(x, CORNERS, 0.1).tolist() == [True, False, False, True]
    assert not modes_hit(x + 50, CORNERS, 0.1).any()


def test_the_slope_of_a_linear_critic_is_the_length_of_its_weights() -> None:
    weights = torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64)
    x = cloud(7, 4)
    assert slope(lambda x: x @ weights, x).tolist() == pytest.approx([5.0] * 7)
    assert gradient_penalty(lambda x: x @ weights, x, 10.0).tolist() == pytest.approx([160.0] * 7)
    with torch.no_grad():
        assert slope(lambda x: x @ weights, x).tolist() == pytest.approx([5.0] * 7)


def test_a_critic_overfits_by_what_vanishes_on_unseen_examples() -> None:
    training, validation = torch.tensor([2.0, 2.0, 2.0]), torch.tensor([2.0, 1.0, 0.0])
    assert overfitting(training, validation).tolist() == [0.0, 0.5, 1.0]
