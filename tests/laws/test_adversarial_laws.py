"""Laws of the Wasserstein game and of the distances it is judged by, in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from triptych.learn.maths.adversarial import critic_loss, generator_loss, gradient_penalty, interpolate
from triptych.learn.maths.transport import directions, frechet, principal_axes, sliced_wasserstein_1

F64 = torch.float64


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=5), st.floats(0, 20))
def test_the_penalty_of_a_linear_critic_is_its_slope_less_one_squared(w: list[float], weight: float) -> None:
    slope = torch.tensor(w, dtype=F64)
    if slope.norm() == 0:
        return
    penalty = gradient_penalty(lambda x: x @ slope, torch.randn(3, len(w), dtype=F64), weight)
    expected = weight * (slope.norm() - 1).square()
    torch.testing.assert_close(penalty, expected.expand(3))


def test_the_penalty_is_per_example_and_not_of_the_whole_batch() -> None:
    penalty = gradient_penalty(
        lambda x: 0.5 * x.square().sum(-1), torch.tensor([[3.0, 4.0], [0.0, 1.0]]), 1.0
    )
    torch.testing.assert_close(penalty, torch.tensor([16.0, 0.0]))


def test_the_penalty_trains_the_critic_and_its_gradient_is_right() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x = torch.randn(5, 3, dtype=F64)

    def paid(weight: Tensor) -> Tensor:
        parameters = {"0.weight": weight}
        return gradient_penalty(
            lambda x: torch.func.functional_call(critic, parameters, (x,)).squeeze(-1), x, 10.0
        )

    assert torch.autograd.gradcheck(paid, critic[0].weight.detach().clone().requires_grad_())


def test_the_penalty_works_where_gradients_are_switched_off() -> None:
    with torch.no_grad():
        penalty = gradient_penalty(lambda x: 3 * x[:, 0], torch.randn(2, 4), 1.0)
    torch.testing.assert_close(penalty, torch.tensor([4.0, 4.0]))


def test_interpolates_lie_between_their_own_pair_with_one_alpha_per_example() -> None:
    real, fake = torch.zeros(3, 4), torch.ones(3, 4)
    alpha = torch.tensor([[0.0], [0.25], [1.0]])
    assert interpolate(real, fake, alpha).tolist() == [[1.0] * 4, [0.75] * 4, [0.0] * 4]


def test_the_two_players_disagree_about_the_fake_score_only() -> None:
    real, fake = torch.tensor([2.0, 3.0]), torch.tensor([1.0, 5.0])
    assert critic_loss(real, fake).tolist() == [-1.0, 2.0]
    assert generator_loss(fake).tolist() == [-1.0, -5.0]


def test_the_critic_whose_slope_is_one_sees_the_distance_between_two_point_masses() -> None:
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    unit = (x - y) / (x - y).norm()
    assert -critic_loss(x @ unit[0], y @ unit[0]).item() == pytest.approx(5.0)


def test_sliced_distance_of_two_point_masses_along_their_line_is_their_distance() -> None:
    x, y = torch.zeros(6, 2, dtype=F64), torch.tensor([[3.0, 4.0]], dtype=F64).expand(6, 2)
    along = torch.tensor([[0.6, 0.8], [0.8, -0.6]], dtype=F64)
    torch.testing.assert_close(sliced_wasserstein_1(x, y, along), torch.tensor([5.0, 0.0], dtype=F64))


@given(st.integers(2, 8), st.integers(1, 5), st.integers(0, 2**32))
def test_sliced_distance_is_a_symmetric_one_that_ignores_order(count: int, size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y, z = torch.randn(3, count, size, dtype=F64, generator=generator)
    u = directions(4, size).double()
    shuffled = x[torch.randperm(count, generator=generator)]
    assert sliced_wasserstein_1(x, shuffled, u).max() < 1e-12
    torch.testing.assert_close(sliced_wasserstein_1(x, y, u), sliced_wasserstein_1(y, x, u))
    detour = sliced_wasserstein_1(x, z, u) + sliced_wasserstein_1(z, y, u)
    assert (sliced_wasserstein_1(x, y, u) <= detour + 1e-12).all()


def test_directions_are_unit_vectors_fixed_by_their_seed() -> None:
    u = directions(50, 7, seed=3)
    torch.testing.assert_close(u.norm(dim=-1), torch.ones(50))
    assert u.equal(directions(50, 7, seed=3))
    assert not u.equal(directions(50, 7, seed=4))


def test_frechet_distance_is_zero_to_itself_and_the_square_of_a_shift() -> None:
    torch.manual_seed(0)
    x = torch.randn(500, 4, dtype=F64)
    assert frechet(x, x).item() == pytest.approx(0.0, abs=1e-6)
    assert frechet(x, x + 3.0).item() == pytest.approx(4 * 9.0, abs=1e-6)


def test_frechet_distance_of_two_scales_is_the_square_of_their_difference() -> None:
    torch.manual_seed(0)
    x = torch.randn(500, 1, dtype=F64)
    x = (x - x.mean()) / x.std()
    assert frechet(2 * x, 5 * x).item() == pytest.approx(9.0, abs=1e-6)


def test_principal_axes_are_orthonormal_and_keep_the_largest_variance() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 3, dtype=F64) * torch.tensor([0.1, 5.0, 1.0], dtype=F64) + 2.0
    centre, axes = principal_axes(x, 2)
    torch.testing.assert_close(centre, x.mean(0))
    torch.testing.assert_close(axes.T @ axes, torch.eye(2, dtype=F64))
    assert ((x - centre) @ axes).var(0).sum() > 0.999 * x.var(0)[1:].sum()
    assert math.isclose(abs(axes[1, -1].item()), 1.0, abs_tol=0.01)


def test_more_axes_than_dimensions_are_all_dimensions() -> None:
    assert principal_axes(torch.randn(9, 3), 32)[1].shape == (3, 3)
