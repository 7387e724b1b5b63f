"""Laws of the variational formulas, in float64."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from triptych.learn.maths.bounds import elbo, free_bits, iwae
from triptych.learn.maths.gaussian import kl_to_standard_normal, log_density, reparameterize
from triptych.learn.maths.likelihoods import LIKELIHOODS, bernoulli, gaussian_on_logits

F64 = torch.float64
numbers = st.floats(-3, 3)
latents = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5)


def columns(rows: list[tuple[float, float]]) -> tuple[Tensor, Tensor]:
    return tuple(torch.tensor(rows, dtype=F64).unbind(-1))


def test_kl_of_the_textbook_example_is_0_7216_nats() -> None:
    kl = kl_to_standard_normal(torch.tensor([1.0, -0.5]), torch.tensor([1.0, 0.5]).log())
    assert kl.item() == pytest.approx(0.7216, abs=5e-5)


def test_kl_of_the_prior_to_itself_is_exactly_zero() -> None:
    assert kl_to_standard_normal(torch.zeros(3, 7), torch.zeros(3, 7)).tolist() == [0.0, 0.0, 0.0]


@given(latents)
def test_kl_equals_torch_distributions_and_is_never_negative(rows: list[tuple[float, float]]) -> None:
    mean, log_var = columns(rows)
    kl = kl_to_standard_normal(mean, log_var)
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(kl, kl_divergence(Normal(mean, (0.5 * log_var).exp()), prior).sum())
    assert kl >= -1e-12


def test_kl_closed_form_equals_monte_carlo_within_five_standard_errors() -> None:
    torch.manual_seed(0)
    mean, log_var = torch.tensor([0.7, -1.2, 0.0], dtype=F64), torch.tensor([-1.0, 0.4, 0.0], dtype=F64)
    z = reparameterize(mean, log_var, torch.randn(200_000, 3, dtype=F64))
    draws = log_density(z, mean, log_var) - log_density(z, torch.zeros_like(mean), torch.zeros_like(mean))
    error = draws.std() / math.sqrt(len(draws))
    assert abs(draws.mean() - kl_to_standard_normal(mean, log_var)) < 5 * error


@given(latents)
def test_gaussian_log_density_equals_torch_distributions(rows: list[tuple[float, float]]) -> None:
    mean, log_var = columns(rows)
    x = torch.linspace(-2, 2, len(rows), dtype=F64)
    expected = Normal(mean, (0.5 * log_var).exp()).log_prob(x).sum()
    torch.testing.assert_close(log_density(x, mean, log_var), expected)


def test_reparameterized_draws_have_the_mean_and_variance_asked_for() -> None:
    torch.manual_seed(0)
    mean, log_var = torch.tensor([2.0, -1.0], dtype=F64), torch.tensor([0.5, -2.0], dtype=F64)
    z = reparameterize(mean, log_var, torch.randn(200_000, 2, dtype=F64))
    torch.testing.assert_close(z.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(z.var(0), log_var.exp(), atol=0, rtol=0.02)


def test_bernoulli_equals_torch_distributions_on_binary_pixels() -> None:
    torch.manual_seed(0)
    logits, x = 4 * torch.randn(5, 9, dtype=F64), torch.randint(2, (5, 9)).double()
    expected = Independent(Bernoulli(logits=logits), 1).log_prob(x)
    torch.testing.assert_close(bernoulli(x, logits), expected)


def test_bernoulli_normalises_over_all_binary_images() -> None:
    logits = torch.tensor([0.3, -2.0, 5.0], dtype=F64)
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=F64)] * 3)
    assert bernoulli(images, logits.expand(8, 3)).exp().sum().item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_bernoulli_stays_finite_where_sigmoid_saturates(logit: float) -> None:
    logits = torch.full((1, 2), logit, requires_grad=True)
    value = bernoulli(torch.tensor([[0.0, 1.0]]), logits)
    value.sum().backward()
    assert value.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_gaussian_likelihood_normalises_and_equals_torch_distributions() -> None:
    logits, log_var = torch.tensor([[0.4]], dtype=F64), torch.tensor(-1.5, dtype=F64)
    x = torch.linspace(-8, 9, 20_001, dtype=F64)[:, None]
    density = gaussian_on_logits(x, logits.expand_as(x), log_var)
    expected = Normal(logits.sigmoid(), (0.5 * log_var).exp()).log_prob(x).sum(-1)
    torch.testing.assert_close(density, expected)
    assert torch.trapezoid(density.exp(), x[:, 0]).item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_likelihood_gives_one_value_per_example_and_a_mean_image_in_range(name: str) -> None:
    likelihood, output = LIKELIHOODS[name], 30 * torch.randn(4, 6, dtype=F64)
    x, log_var = torch.rand(4, 6, dtype=F64), torch.zeros((), dtype=F64)
    values = likelihood.log_density(x, output, log_var)
    assert values.shape == (4,)
    for row in range(4):
        alone = likelihood.log_density(x[row : row + 1], output[row : row + 1], log_var)
        torch.testing.assert_close(alone, values[row : row + 1])
    assert 0 <= likelihood.mean(output).min() <= likelihood.mean(output).max() <= 1


@pytest.mark.parametrize("name", [name for name, one in LIKELIHOODS.items() if one.has_scale])
def test_every_likelihood_with_a_scale_depends_on_it(name: str) -> None:
    x, output = torch.rand(1, 6), torch.randn(1, 6)
    narrow, wide = (LIKELIHOODS[name].log_density(x, output, torch.tensor(s)) for s in (-1.0, 1.0))
    assert narrow != wide


@given(latents, st.floats(0, 2))
def test_free_bits_never_lower_the_price_and_are_the_kl_when_nothing_is_free(
    rows: list[tuple[float, float]], floor: float
) -> None:
    mean, log_var = columns(rows)
    kl = kl_to_standard_normal(mean[:, None], log_var[:, None])
    torch.testing.assert_close(free_bits(kl, 0.0), kl_to_standard_normal(mean, log_var), atol=1e-12, rtol=0)
    assert free_bits(kl, floor) >= kl.sum() - 1e-12
    assert free_bits(kl, floor) >= floor * len(rows) - 1e-12


def test_a_latent_below_its_free_bits_has_no_gradient_and_one_above_has_its_own() -> None:
    mean = torch.tensor([0.1, 2.0], dtype=F64, requires_grad=True)
    kl = kl_to_standard_normal(mean[:, None], torch.zeros(2, 1, dtype=F64))
    (gradient,) = torch.autograd.grad(free_bits(kl, 0.5), mean)
    assert gradient.tolist() == [0.0, 2.0]


def test_iwae_of_one_sample_is_the_elbo_with_that_sample() -> None:
    log_weights = torch.randn(1, 5, dtype=F64)
    torch.testing.assert_close(iwae(log_weights), log_weights[0])


def test_iwae_stays_finite_where_the_weights_underflow() -> None:
    log_weights = torch.full((8, 3), -5000.0)
    torch.testing.assert_close(iwae(log_weights), torch.full((3,), -5000.0))


class Toy:
    """p(z) = N(0, 1), p(x|z) = N(z, 1), a q(z|x) that is off: log p(x) is known."""

    x = torch.full((20_000, 1), 1.3, dtype=F64)
    mean, log_var = torch.full_like(x, 0.2), torch.full_like(x, 0.3)
    log_evidence = Normal(0.0, math.sqrt(2)).log_prob(torch.tensor(1.3)).item()

    def log_weights(self, samples: int) -> Tensor:
        z = reparameterize(self.mean, self.log_var, torch.randn(samples, *self.x.shape, dtype=F64))
        zero = torch.zeros_like(self.x)
        joint = log_density(self.x, z, zero) + log_density(z, zero, zero)
        return joint - log_density(z, self.mean, self.log_var)

    def elbo(self) -> Tensor:
        z = reparameterize(self.mean, self.log_var, torch.randn_like(self.x))
        likelihood = log_density(self.x, z, torch.zeros_like(self.x))
        return elbo(likelihood, kl_to_standard_normal(self.mean, self.log_var))


def test_elbo_is_below_iwae_which_rises_with_k_and_stays_below_the_evidence() -> None:
    torch.manual_seed(0)
    toy = Toy()
    bounds = [toy.elbo(), *(iwae(toy.log_weights(samples)) for samples in (2, 8, 64))]
    means = [bound.mean().item() for bound in bounds]
    error = max(bound.std().item() / math.sqrt(len(bound)) for bound in bounds)
    assert all(low < high for low, high in pairwise(means)), means
    assert means[-1] < toy.log_evidence + 5 * error
    assert means[-1] == pytest.approx(toy.log_evidence, abs=0.02)


@settings(max_examples=20)
@given(st.integers(1, 6), st.integers(1, 4))
def test_no_formula_mixes_the_examples_of_a_batch(batch: int, size: int) -> None:
    mean, log_var = torch.randn(batch, size, dtype=F64), torch.randn(batch, size, dtype=F64)
    whole = kl_to_standard_normal(mean, log_var)
    alone = [kl_to_standard_normal(m, v) for m, v in zip(mean, log_var, strict=True)]
    torch.testing.assert_close(whole, torch.stack(alone))
