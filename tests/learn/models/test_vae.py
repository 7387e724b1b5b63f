"""The VAE's settings, schedule and bounds."""

import math

import msgspec
import pytest
import torch

from triptych.errors import ConfigError
from triptych.learn.maths.gaussian import kl_to_standard_normal
from triptych.learn.maths.likelihoods import LIKELIHOODS
from triptych.learn.models import VAE, Batch, Progress

TINY = {"sample_shape": (1, 3, 3), "hidden": (16,), "latent_dim": 2}


def vae(**settings: object) -> VAE:
    torch.manual_seed(0)
    return VAE(VAE.Config(**TINY, **settings))


def totals(model: VAE, step: int, x: torch.Tensor) -> tuple[float, dict[str, float]]:
    torch.manual_seed(1)
    terms = model.loss(Batch(x), model.turns()[0], Progress(step=step))
    return terms.total.item(), {name: value.item() for name, value in terms.named.items()}


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"beta": -1.0}, "model.beta"),
        ({"beta": math.nan}, "model.beta"),
        ({"latent_dim": 0}, "model.latent_dim"),
        ({"hidden": (400, 0)}, "model.hidden"),
        ({"sample_shape": ()}, "model.sample_shape"),
        ({"likelihood": "bernouli"}, "model.likelihood"),
        ({"likelihood": "bernoulli", "sigma": 1.0}, "model.sigma"),
        ({"likelihood": "gaussian", "sigma": 0.0}, "model.sigma"),
        ({"kl_warmup_steps": -1}, "model.kl_warmup_steps"),
        ({"kl_cycle_steps": 10}, "model.kl_cycle_steps"),
        ({"kl_warmup_steps": 10, "kl_cycle_steps": 10}, "model.kl_cycle_steps"),
        ({"free_bits_nats": -0.1}, "model.free_bits_nats"),
    ],
)
def test_a_bad_setting_is_an_error_that_names_it_and_what_is_valid(settings: dict, where: str) -> None:
    with pytest.raises(ConfigError, match="valid:") as caught:
        VAE.Config(**settings)
    assert caught.value.where == where


def test_a_bad_setting_in_a_file_is_the_same_error() -> None:
    with pytest.raises(ConfigError, match=r"model\.beta"):
        msgspec.toml.decode('family = "vae"\nbeta = -1', type=VAE.Config)


def test_the_total_is_reconstruction_plus_beta_times_kl() -> None:
    total, named = totals(vae(beta=3.0), 0, torch.rand(4, 1, 3, 3))
    assert total == pytest.approx(named["reconstruction_nats"] + 3 * named["kl_nats"], rel=1e-5)
    assert named["negative_elbo_nats"] == pytest.approx(
        named["reconstruction_nats"] + named["kl_nats"], rel=1e-5
    )


def test_kl_warm_up_rises_linearly_to_beta_and_stays() -> None:
    model = vae(beta=2.0, kl_warmup_steps=10)
    assert [model.beta_at(step) for step in (0, 5, 10, 99)] == [0.0, 1.0, 2.0, 2.0]
    assert vae().beta_at(0) == 1.0


def test_free_bits_change_what_is_paid_and_not_what_is_reported() -> None:
    x = torch.rand(4, 1, 3, 3)
    plain, free = totals(vae(), 0, x), totals(vae(free_bits_nats=5.0), 0, x)
    assert free[1] == plain[1]
    assert free[0] == pytest.approx(free[1]["reconstruction_nats"] + 2 * 5.0, rel=1e-5)


def test_kl_cycles_begin_anew_at_nothing() -> None:
    model = vae(beta=2.0, kl_warmup_steps=10, kl_cycle_steps=20)
    assert [model.beta_at(step) for step in (0, 5, 10, 19, 20, 25, 39)] == [0, 1, 2, 2, 0, 1, 2]


def test_validation_does_not_depend_on_beta_warm_up_or_free_bits() -> None:
    x, values = torch.rand(4, 1, 3, 3), []
    for settings in ({}, {"beta": 9.0, "kl_warmup_steps": 7, "free_bits_nats": 1.0}):
        model = vae(**settings)
        torch.manual_seed(1)
        values.append(model.validate(Batch(x)).named)
    assert values[0] == values[1]


def test_log_variances_are_clamped_to_ten() -> None:
    model = vae()
    torch.nn.init.constant_(model.encoder[-1].bias, 1e6)
    _, log_var = model.encode(torch.rand(2, 1, 3, 3))
    assert log_var.unique().tolist() == [10.0]


def test_a_fixed_sigma_is_used_and_not_saved_and_a_learned_one_is_both() -> None:
    fixed, learned = (vae(likelihood="gaussian", sigma=sigma) for sigma in (0.5, "learned"))
    assert fixed.pixel_log_var.item() == pytest.approx(math.log(0.25))
    assert "pixel_log_var" not in fixed.state_dict()
    assert "pixel_log_var" in dict(learned.named_parameters())


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_importance_weights_of_one_draw_average_to_the_elbo(likelihood: str) -> None:
    model, x = vae(likelihood=likelihood), torch.rand(1, 1, 3, 3)
    torch.manual_seed(2)
    with torch.no_grad():
        weights = model.log_weights(x, 40_000)[:, 0].double()
        mean, log_var = model.encode(x)
        z = mean + (0.5 * log_var).exp() * torch.randn(40_000, 2)
        elbo = model.log_likelihood(x, z).double() - kl_to_standard_normal(mean, log_var)
    error = math.sqrt((weights.var() + elbo.var()).item() / 40_000)
    assert abs(weights.mean() - elbo.mean()) < 5 * error


def test_reconstruction_is_the_mean_image_at_the_mean_latent() -> None:
    model, x = vae(), torch.rand(2, 1, 3, 3)
    assert model.reconstruct(x).equal(model.decode(model.encode(x)[0]).detach())
