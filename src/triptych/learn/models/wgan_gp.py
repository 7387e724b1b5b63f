"""The Wasserstein GAN with a gradient penalty.

A critic estimates the Wasserstein-1 distance between data and samples, kept smooth by a penalty on its slope;
a generator lowers that estimate.

Source: Gulrajani et al. 2017, arXiv:1704.00028, algorithm 1; with labels, both players see them, as in the
conditional GAN of Mirza & Osindero 2014, arXiv:1411.1784, eq. 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from triptych.bundle import noise
from triptych.bundle.condition import LABEL
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
from triptych.learn.models.condition import example_labels, join, label_spec, sample_labels, width
from triptych.learn.models.figures import mean_and_error
from triptych.learn.models.pictures import latent_sampler, picture_spec
from triptych.learn.nn import MLP

PROJECTIONS = 128  # directions of the sliced Wasserstein distance in validation
PCA_AXES = 32  # dimensions of the space of the Fréchet distance and of coverage
NEIGHBOURS = 5  # of coverage


class WGANGPConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="wgan-gp"):
    """Settings of a WGAN-GP.

    `generator_hidden` and `critic_hidden` are hidden widths; `penalty_weight` is the paper's lambda and
    `critic_updates` its n_critic. `classes` is how many labels there are to condition on; None for a GAN
    without labels.
    """

    sample_shape: tuple[int, ...] = (1, 28, 28)
    latent_dim: int = 100
    generator_hidden: tuple[int, ...] = (256, 512)
    critic_hidden: tuple[int, ...] = (512, 256)
    penalty_weight: float = 10.0
    critic_updates: int = 5
    classes: int | None = None

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
        self.require("classes", self.classes is None or self.classes > 0, "1 or more, or nothing")
        self.require("critic_updates", self.critic_updates > 0, "1 or more", "the paper uses 5")


class Generate(nn.Module):
    """z of shape (B, Z), and labels (B,), to an image in [0, 1], (B, *sample_shape)."""

    def __init__(self, gan: WGANGP) -> None:
        super().__init__()
        self.generator = gan.generator
        self.sample_shape, self.classes = gan.config.sample_shape, gan.config.classes

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        a = self.generator(join(z, label, self.classes))
        x = torch.sigmoid(2 * a)  # (1 + tanh(a)) / 2, and never outside [0, 1] by a rounding
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
        pixels, more = math.prod(config.sample_shape), width(config.classes)
        self.generator = MLP((config.latent_dim + more, *config.generator_hidden, pixels))
        self.critic = MLP((pixels + more, *config.critic_hidden, 1), lambda: nn.LeakyReLU(0.2))
        self.register_buffer("directions", directions(PROJECTIONS, pixels), persistent=False)

    def turns(self) -> tuple[Turn, ...]:
        """The critic moves `critic_updates` times, then the generator once."""
        turn = partial(Turn, learning_rate=1e-4, betas=(0.5, 0.9))
        return (
            turn("critic", tuple(self.critic.parameters()), updates=self.config.critic_updates),
            turn("generator", tuple(self.generator.parameters()), needs_data=False),
        )

    def loss(self, batch: Batch, turn: Turn, progress: Progress) -> Terms:
        """What the critic or the generator pays; the generator needs only the size of the batch and its
        labels.
        """
        if turn.name == "critic":
            return self.critic_terms(batch.x, batch.labels)
        return self.generator_terms(len(batch), batch.labels)

    def critic_terms(self, x: Tensor, labels: Tensor | None = None) -> Terms:
        """The critic's loss; no gradient reaches the generator."""
        real, score = to_players(x), partial(self.score, labels=labels)
        with torch.no_grad():
            fake = self.draw(len(x), labels)
        between = interpolate(real, fake, alpha=torch.rand(len(x), 1, device=x.device))
        penalty = gradient_penalty(score, between, self.config.penalty_weight).mean()
        loss = critic_loss(score(real), score(fake)).mean()
        return Terms(loss + penalty, {"wasserstein": -loss, "gradient_penalty": penalty})

    def generator_terms(self, n: int, labels: Tensor | None = None) -> Terms:
        """The generator's loss; no gradient is left on the critic."""
        loss = generator_loss(self.score(self.draw(n, labels), labels, frozen=True)).mean()
        return Terms(loss, {"generator": loss})

    def draw(self, n: int, labels: Tensor | None = None) -> Tensor:
        """`n` flat samples in [-1, 1] from torch's global generator."""
        return to_players(self.generate(self.latents(n), labels))

    def latents(self, n: int) -> Tensor:
        """`n` draws from the prior, (n, Z), from torch's global generator."""
        return torch.randn(n, self.config.latent_dim, device=self.directions.device)

    def generate(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images in [0, 1], (B, *sample_shape), for z of shape (B, Z)."""
        image: Tensor = Generate(self)(z, labels)
        return image.to(z.dtype)

    def score(self, x: Tensor, labels: Tensor | None = None, *, frozen: bool = False) -> Tensor:
        """The critic's score of each flat example in [-1, 1]: (B, D) to (B,); `frozen` lets gradients pass
        through the critic without being left on it.
        """
        weights = {name: w.detach() if frozen else w for name, w in self.critic.named_parameters()}
        score: Tensor = functional_call(self.critic, weights, (join(x, labels, self.config.classes),))
        return score.squeeze(-1).to(x.dtype)  # under autocast the network's output is bfloat16

    def validate(self, batch: Batch) -> Terms:
        """How far samples lie from the batch: sliced Wasserstein-1, and the critic's estimate."""
        fake = self.generate(self.latents(len(batch)), batch.labels)
        score = partial(self.score, labels=batch.labels)
        apart = sliced_wasserstein_1(batch.x.flatten(1), fake.flatten(1), self.directions).mean()
        critic = -critic_loss(score(to_players(batch.x)), score(to_players(fake))).mean()
        return Terms(apart, {"sliced_w1": apart, "wasserstein": critic})

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, condition: object | None = None) -> Tensor:
        """`n` generated images in [0, 1]; `condition` is `{"label": 3}` or a list of labels, in a conditional
        GAN, and by default each class in turn.
        """
        labels = sample_labels(condition, n, self.config.classes)
        z = noise.normal([seed] * n, range(n), (self.config.latent_dim,))
        weight = next(self.parameters())
        on_device = None if labels is None else labels.to(weight.device)
        return self.generate(torch.from_numpy(z).to(weight), on_device)

    def diagnose(self, batches: Iterable[Batch]) -> dict[str, float | list[float]]:
        """The critic's slope between data and samples, which should be 1; the coverage of the data by as many
        samples in the space of its principal axes, and how much these differ among themselves, over the data.
        """
        batches = list(batches)
        real = torch.cat([batch.x for batch in batches]).flatten(1)
        if len(real) <= NEIGHBOURS:
            return {}
        condition = self.labels_of(batches)
        labels = None if condition is None else torch.tensor(condition[LABEL], device=real.device)
        fake = self.sample(len(real), condition=condition).flatten(1)
        alpha = torch.rand(len(real), 1, device=real.device)
        between = interpolate(to_players(real), to_players(fake), alpha)
        real, fake = real.cpu().double(), fake.cpu().double()  # not every device has double precision
        centre, axes = principal_axes(real, PCA_AXES)
        data, samples = ((x - centre) @ axes for x in (real, fake))
        return {
            "critic_slope": slope(partial(self.score, labels=labels), between).mean().item(),
            "coverage": covered(data, samples, NEIGHBOURS).double().mean().item(),
            "diversity": (spread(samples) / spread(data)).item(),
        }

    def figures(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Distances of as many samples from the data: sliced Wasserstein-1, Fréchet in a PCA space."""
        batches = list(batches)
        real = torch.cat([batch.x for batch in batches]).flatten(1)
        fake = self.sample(len(real), condition=self.labels_of(batches)).flatten(1)
        apart = mean_and_error("sliced_w1", [sliced_wasserstein_1(real, fake, self.directions)])
        centre, axes = principal_axes(real.double(), PCA_AXES)
        distance = frechet((real.double() - centre) @ axes, (fake.double() - centre) @ axes)
        return apart | {"frechet_pca": distance.item(), "pca_axes": axes.shape[1], "examples": len(real)}

    def labels_of(self, batches: Iterable[Batch]) -> dict[str, list[int]] | None:
        """The condition that draws samples of the same labels, in a conditional GAN."""
        if self.config.classes is None:
            return None
        return {
            LABEL: [label for batch in batches if batch.labels is not None for label in batch.labels.tolist()]
        }

    def graphs(self) -> tuple[Graph, ...]:
        """`generate`: z, and the label of each row in a conditional GAN, to an image x."""
        label, labels = label_spec(self.config.classes), example_labels(2, self.config.classes)
        z = TensorSpec(name="z", shape=("batch", self.config.latent_dim))
        x = picture_spec(("batch", *self.config.sample_shape))
        example = torch.randn(2, self.config.latent_dim), *labels
        return (Graph("generate", Generate(self), (z, *label), (x,), example),)

    def sampler(self) -> LatentSampler:
        """Draw z and generate."""
        return latent_sampler("generate", self.config.latent_dim, self.config.classes)

    def sample_spec(self) -> TensorSpec:
        """An image in [0, 1]."""
        return picture_spec(self.config.sample_shape)


def to_players(x: Tensor) -> Tensor:
    """Images in [0, 1], (B, *sample_shape), as the players see them: flat, in [-1, 1]."""
    return 2 * x.flatten(1) - 1
