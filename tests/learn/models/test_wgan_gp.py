"""The two players of the WGAN-GP."""

import math

import pytest
import torch

from triptych.errors import ConfigError
from triptych.learn.models import WGANGP, Batch, Progress
from triptych.learn.models.wgan_gp import to_players

TINY = {"sample_shape": (1, 3, 3), "latent_dim": 4, "generator_hidden": (16,), "critic_hidden": (16,)}


def gan(**settings: object) -> WGANGP:
    torch.manual_seed(0)
    return WGANGP(WGANGP.Config(**TINY | settings))


@pytest.mark.parametrize(
    "settings", [{"penalty_weight": -1.0}, {"critic_updates": 0}, {"latent_dim": 0}, {"critic_hidden": (0,)}]
)
def test_a_bad_setting_is_an_error_that_names_it(settings: dict) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{next(iter(settings))}: .*valid:"):
        WGANGP.Config(**settings)


def test_the_critic_moves_five_times_on_data_then_the_generator_once_without() -> None:
    critic, generator = gan().turns()
    assert (critic.name, critic.updates, critic.needs_data) == ("critic", 5, True)
    assert (generator.name, generator.updates, generator.needs_data) == ("generator", 1, False)
    assert (
        (critic.learning_rate, critic.betas)
        == (generator.learning_rate, generator.betas)
        == (1e-4, (0.5, 0.9))
    )


def test_the_critics_step_leaves_no_gradient_on_the_generator_nor_the_other_way_round() -> None:
    model, batch = gan(), Batch(torch.rand(5, 1, 3, 3))
    critic, generator = model.turns()
    model.loss(batch, critic, Progress()).total.backward()
    assert all(parameter.grad is None for parameter in generator.parameters)
    model.zero_grad()
    model.loss(batch, generator, Progress()).total.backward()
    assert all(parameter.grad is None for parameter in critic.parameters)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_players_see_images_from_minus_one_to_one_and_the_world_from_zero_to_one() -> None:
    assert to_players(torch.tensor([[[[0.0, 0.5, 1.0]]]])).tolist() == [[-1.0, 0.0, 1.0]]
    model = gan()
    torch.nn.init.constant_(model.generator[-1].bias, 50.0)
    assert model.sample(1).unique().tolist() == [1.0]
    torch.testing.assert_close(model.draw(1), torch.ones(1, 9))


def test_the_total_is_the_negated_distance_plus_the_penalty() -> None:
    model = gan()
    terms = model.critic_terms(torch.rand(8, 1, 3, 3))
    torch.testing.assert_close(terms.total, terms.named["gradient_penalty"] - terms.named["wasserstein"])


def test_a_trained_critic_finds_the_distance_times_the_slope_that_the_penalty_leaves_it() -> None:
    model = gan()
    torch.nn.init.constant_(model.generator[-1].bias, -50.0)  # every sample is a black image,
    white, distance = torch.ones(64, 1, 3, 3), 2 * math.sqrt(9)  # and the data white ones
    optimiser = torch.optim.Adam(model.critic.parameters(), 2e-3, (0.5, 0.9))
    for _ in range(400):
        optimiser.zero_grad()
        terms = model.critic_terms(white)
        terms.total.backward()
        optimiser.step()
    slope = 1 + distance / (2 * model.config.penalty_weight)  # the maximum of slope * distance - penalty
    assert terms.named["wasserstein"].item() == pytest.approx(slope * distance, rel=0.01)
    assert terms.named["gradient_penalty"].item() == pytest.approx(10 * (slope - 1) ** 2, rel=0.05)


def test_validation_of_perfect_samples_is_zero() -> None:
    model = gan()
    torch.manual_seed(5)
    perfect = model.generate(torch.randn(20, 4)).detach()
    torch.manual_seed(5)
    assert model.validate(Batch(perfect)).named["sliced_w1"].item() == pytest.approx(0.0, abs=1e-7)
