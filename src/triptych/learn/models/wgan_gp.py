"""The Wasserstein GAN with a gradient penalty.

A critic estimates the Wasserstein-1 distance between data and samples, kept smooth by a penalty on its slope;
a generator lowers that estimate.

Source: Gulrajani et al. 2017, arXiv:1704.00028, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from triptych.bundle import noise
from triptych.bundle.manifest import LatentSampler, TensorSpec
from triptych.learn.maths.adversarial import (
    critic_loss,
    generator_loss,
    gradient_penalty,
    interpolate,
    slope,
)
from triptych.learn.maths.support import covered, spread
from triptych.learn.maths.transport import directions, frechet, principal_axes, sliced_wasserstein_1
from triptych.learn.models.base import Batch, Config, GenerativeModel, Graph, Progress, Terms, Turn
from triptych.learn.models.figures import mean_and_error
from triptych.learn.nn import MLP

PROJECTIONS = 128  # directions of the sliced Wasserstein distance in validation
PCA_AXES = 32  # dimensions of the space of the Fréchet distance and of coverage
NEIGHBOURS = 5  # of coverage


class WGANGPConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="wgan-gp"):
    """Settings of a WGAN-GP.

    `generator_hidden` and `critic_hidden` are hidden widths; `penalty_weight` is the paper's lambda and
    `critic_updates` its n_critic.
    """

    sample_shape: tuple[int, ...] = (1, 28, 28)
    latent_dim: int = 100
    generator_hidden: tuple[int, ...] = (256, 512)
    critic_hidden: tuple[int, ...] = (512, 256)
    penalty_weight: float = 10.0
    critic_updates: int = 5

    def __post_init__(self) -> None:
        self.require(
            "sample_shape", len(self.sample_shape) > 0 and min(self.sample_shape) > 0, "sizes of 1 or more"
        )
        self.require("latent_dim", self.latent_dim > 0, "1 or more")
        self.require(
            "generator_hidden", all(width > 0 for width in self.generator_hidden), "widths of 1 or more"
        )
        self.require("critic_hidden", all(width > 0 for width in self.critic_hidden), "widths of 1 or more")
        self.require("penalty_weight", 0 <= self.penalty_weight < math.inf, "0 or more", "the paper uses 10")
        self.require("critic_updates", self.critic_updates > 0, "1 or more", "the paper uses 5")


class Generate(nn.Module):
    """z of shape (B, Z) to an image in [0, 1], (B, *sample_shape)."""

    def __init__(self, gan: WGANGP) -> None:
        super().__init__()
        self.generator, self.sample_shape = gan.generator, gan.config.sample_shape

    def forward(self, z: Tensor) -> Tensor:
        x = torch.sigmoid(2 * self.generator(z))  # (1 + tanh(a)) / 2, and never outside [0, 1] by a rounding
        return x.view(-1, *self.sample_shape)


class WGANGP(GenerativeModel):
    """A WGAN-GP of fully connected layers: 100-256-512-784 against 784-512-256-1 by default.

    Images are in [0, 1] outside and in [-1, 1] between the two players. The critic has no normalisation
    layers, so its gradient is per example. Weights start as `torch.nn.Linear` has them; ReLU in the
    generator, leaky ReLU (0.2) in the critic.

    Source: arXiv:1704.00028. Penalty, lambda, five critic updates and the learning rate are as published.
    Deviations: Adam's beta1 is 0.5, as in the authors' own code for MNIST, where algorithm 1 has 0; the
    players are fully connected, because small grey images need no convolutions.
    """

    family = "wgan-gp"
    Config = WGANGPConfig
    validation_metric = "sliced_w1"
    config: WGANGPConfig
    directions: Tensor

    def __init__(self, config: WGANGPConfig) -> None:
        super().__init__(config)
        pixels = math.prod(config.sample_shape)
        self.generator = MLP((config.latent_dim, *config.generator_hidden, pixels))
        self.critic = MLP((pixels, *config.critic_hidden, 1), lambda: nn.LeakyReLU(0.2))
        self.register_buffer("directions", directions(PROJECTIONS, pixels), persistent=False)

    def turns(self) -> tuple[Turn, ...]:
        """The critic moves `critic_updates` times, then the generator once."""
        turn = partial(Turn, learning_rate=1e-4, betas=(0.5, 0.9))
        return (
            turn("critic", tuple(self.critic.parameters()), updates=self.config.critic_updates),
            turn("generator", tuple(self.generator.parameters()), needs_data=False),
        )

    def loss(self, batch: Batch, turn: Turn, progress: Progress) -> Terms:
        """What the critic or the generator pays; the generator needs only the size of the batch."""
        return self.critic_terms(batch.x) if turn.name == "critic" else self.generator_terms(len(batch))

    def critic_terms(self, x: Tensor) -> Terms:
        """The critic's loss; no gradient reaches the generator."""
        real = to_players(x)
        with torch.no_grad():
            fake = self.draw(len(x))
        between = interpolate(real, fake, alpha=torch.rand(len(x), 1))
        penalty = gradient_penalty(self.score, between, self.config.penalty_weight).mean()
        loss = critic_loss(self.score(real), self.score(fake)).mean()
        return Terms(loss + penalty, {"wasserstein": -loss, "gradient_penalty": penalty})

    def generator_terms(self, n: int) -> Terms:
        """The generator's loss; no gradient is left on the critic."""
        loss = generator_loss(self.score(self.draw(n), frozen=True)).mean()
        return Terms(loss, {"generator": loss})

    def draw(self, n: int) -> Tensor:
        """`n` flat samples in [-1, 1] from torch's global generator."""
        return to_players(self.generate(torch.randn(n, self.config.latent_dim)))

    def generate(self, z: Tensor) -> Tensor:
        """Images in [0, 1], (B, *sample_shape), for z of shape (B, Z)."""
        image: Tensor = Generate(self)(z)
        return image.to(z.dtype)

    def score(self, x: Tensor, *, frozen: bool = False) -> Tensor:
        """The critic's score of each flat example in [-1, 1]: (B, D) to (B,); `frozen` lets gradients pass
        through the critic without being left on it.
        """
        weights = {name: w.detach() if frozen else w for name, w in self.critic.named_parameters()}
        score: Tensor = functional_call(self.critic, weights, (x,))
        return score.squeeze(-1).to(x.dtype)  # under autocast the network's output is bfloat16

    def validate(self, batch: Batch) -> Terms:
        """How far samples lie from the batch: sliced Wasserstein-1, and the critic's estimate."""
        fake = self.generate(torch.randn(len(batch), self.config.latent_dim))
        apart = sliced_wasserstein_1(batch.x.flatten(1), fake.flatten(1), self.directions).mean()
        critic = -critic_loss(self.score(to_players(batch.x)), self.score(to_players(fake))).mean()
        return Terms(apart, {"sliced_w1": apart, "wasserstein": critic})

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, condition: object | None = None) -> Tensor:
        """`n` generated images in [0, 1]."""
        self.refuse(condition)
        z = noise.normal([seed] * n, range(n), (self.config.latent_dim,))
        return self.generate(torch.from_numpy(z).to(next(self.parameters())))

    def diagnose(self, batches: Iterable[Batch]) -> dict[str, float | list[float]]:
        """The critic's slope between data and samples, which should be 1; the coverage of the data by as many
        samples in the space of its principal axes, and how much these differ among themselves, over the data.
        """
        real = torch.cat([batch.x for batch in batches]).flatten(1)
        if len(real) <= NEIGHBOURS:
            return {}
        fake = self.sample(len(real)).flatten(1)
        between = interpolate(to_players(real), to_players(fake), torch.rand(len(real), 1))
        centre, axes = principal_axes(real.double(), PCA_AXES)
        data, samples = ((x.double() - centre) @ axes for x in (real, fake))
        return {
            "critic_slope": slope(self.score, between).mean().item(),
            "coverage": covered(data, samples, NEIGHBOURS).double().mean().item(),
            "diversity": (spread(samples) / spread(data)).item(),
        }

    def figures(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Distances of as many samples from the data: sliced Wasserstein-1, Fréchet in a PCA space."""
        real = torch.cat([batch.x for batch in batches]).flatten(1)
        fake = self.sample(len(real)).flatten(1)
        apart = mean_and_error("sliced_w1", [sliced_wasserstein_1(real, fake, self.directions)])
        centre, axes = principal_axes(real.double(), PCA_AXES)
        distance = frechet((real.double() - centre) @ axes, (fake.double() - centre) @ axes)
        return apart | {"frechet_pca": distance.item(), "pca_axes": axes.shape[1], "examples": len(real)}

    def graphs(self) -> tuple[Graph, ...]:
        """`generate`: z to an image x."""
        z = TensorSpec(name="z", shape=("batch", self.config.latent_dim))
        x = TensorSpec(name="x", shape=("batch", *self.config.sample_shape), low=0.0, high=1.0)
        return (Graph("generate", Generate(self), (z,), (x,), (torch.randn(2, self.config.latent_dim),)),)

    def sampler(self) -> LatentSampler:
        """Draw z and generate."""
        return LatentSampler(graph="generate", input="z", output="x", latent_shape=(self.config.latent_dim,))

    def sample_spec(self) -> TensorSpec:
        """An image in [0, 1]."""
        return TensorSpec(name="x", shape=self.config.sample_shape, low=0.0, high=1.0)


def to_players(x: Tensor) -> Tensor:
    """Images in [0, 1], (B, *sample_shape), as the players see them: flat, in [-1, 1]."""
    return 2 * x.flatten(1) - 1
