"""The variational autoencoder.

An encoder says where in a small latent space an example may lie, q(z|x); a decoder says what a latent looks
like, p(x|z). Both are trained to raise a lower bound of log p(x).

Source: Kingma & Welling 2014, arXiv:1312.6114; beta: Higgins et al. 2017 and Burgess et al. 2018,
arXiv:1804.03599. With labels it is the conditional VAE of Sohn et al. 2015 ("Learning Structured Output
Representation using Deep Conditional Generative Models"): encoder and decoder see the label too. Deviation:
the prior of z stays N(0, I) for every label, so that the same noise can be drawn as each class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from triptych.bundle import noise
from triptych.bundle.manifest import LatentSampler, TensorSpec
from triptych.learn.maths.bounds import elbo, free_bits, iwae
from triptych.learn.maths.gaussian import kl_to_standard_normal, log_density, reparameterize
from triptych.learn.maths.likelihoods import LIKELIHOODS
from triptych.learn.maths.support import active
from triptych.learn.models.base import Batch, Config, GenerativeModel, Graph, Progress, Terms, Turn
from triptych.learn.models.condition import example_labels, join, label_spec, sample_labels, width
from triptych.learn.models.figures import mean_and_error
from triptych.learn.models.pictures import latent_sampler, picture_spec
from triptych.learn.nn import MLP

LOG_VAR_LIMIT = 10.0  # log-variances are clamped to [-10, 10]
IWAE_SAMPLES = 32


class VAEConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="vae"):
    """Settings of a VAE.

    `hidden` are the encoder's hidden widths, mirrored in the decoder. `likelihood` is a name in
    `maths.likelihoods.LIKELIHOODS`. `sigma` is the Gaussian likelihood's pixel deviation, or "learned".
    `beta` weighs the KL and `kl_warmup_steps` raises it linearly from 0, anew every `kl_cycle_steps`;
    `free_bits_nats` is what each latent has for free, in nats. `classes` is how many labels there are to
    condition on; None for a VAE without labels.
    """

    sample_shape: tuple[int, ...] = (1, 28, 28)
    hidden: tuple[int, ...] = (400,)
    latent_dim: int = 20
    likelihood: str = "bernoulli"
    sigma: float | Literal["learned"] | None = None
    beta: float = 1.0
    kl_warmup_steps: int = 0
    kl_cycle_steps: int | None = None
    free_bits_nats: float = 0.0
    classes: int | None = None

    def __post_init__(self) -> None:
        self.require(
            "sample_shape", len(self.sample_shape) > 0 and min(self.sample_shape) > 0, "sizes of 1 or more"
        )
        self.require("hidden", all(width > 0 for width in self.hidden), "widths of 1 or more")
        self.require("latent_dim", self.latent_dim > 0, "1 or more")
        self.require("likelihood", self.likelihood in LIKELIHOODS, ", ".join(LIKELIHOODS))
        self.require("beta", 0 <= self.beta < math.inf, "0 or more", "beta = 1 is the VAE")
        self.require("kl_warmup_steps", self.kl_warmup_steps >= 0, "0 or more")
        cycle_fits = self.kl_cycle_steps is None or self.kl_cycle_steps > self.kl_warmup_steps > 0
        self.require("kl_cycle_steps", cycle_fits, "more than kl_warmup_steps, which must be set")
        self.require("free_bits_nats", 0 <= self.free_bits_nats < math.inf, "0 or more")
        self.require("classes", self.classes is None or self.classes > 0, "1 or more, or nothing")
        if LIKELIHOODS[self.likelihood].has_scale:
            positive = self.sigma in (None, "learned") or 0 < float(self.sigma) < math.inf
            self.require("sigma", positive, '"learned" or a number above 0')
        else:
            remedy = f"a {self.likelihood} likelihood has no sigma: remove it"
            self.require("sigma", self.sigma is None, "nothing", remedy)


class Encode(nn.Module):
    """x of shape (B, *sample_shape), and labels (B,), to the mean and log-variance of q(z|x), (B, Z) each."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.encoder, self.classes = vae.encoder, vae.config.classes

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, log_var = self.encoder(join(x.flatten(1), label, self.classes)).chunk(2, dim=-1)
        return mean, log_var.clamp(-LOG_VAR_LIMIT, LOG_VAR_LIMIT)


class Decode(nn.Module):
    """z of shape (B, Z), and labels (B,), to the mean image of p(x|z), in [0, 1], (B, *sample_shape)."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.decoder, self.mean = vae.decoder, vae.likelihood.mean
        self.sample_shape, self.classes = vae.config.sample_shape, vae.config.classes

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self.mean(self.decoder(join(z, label, self.classes))).view(-1, *self.sample_shape)


class VAE(GenerativeModel):
    """A VAE of fully connected layers, 784-400-20-400-784 by default, ReLU between them.

    Weights start as `torch.nn.Linear` has them. A learned sigma starts at 1, as does one that is not given.

    >>> VAE(VAE.Config(latent_dim=2)).sample(3, seed=7).shape
    torch.Size([3, 1, 28, 28])
    """

    family = "vae"
    Config = VAEConfig
    validation_metric = "negative_elbo_nats"
    config: VAEConfig

    def __init__(self, config: VAEConfig) -> None:
        super().__init__(config)
        pixels, more = math.prod(config.sample_shape), width(config.classes)
        self.encoder = MLP((pixels + more, *config.hidden, 2 * config.latent_dim))
        self.decoder = MLP((config.latent_dim + more, *reversed(config.hidden), pixels))
        self.likelihood = LIKELIHOODS[config.likelihood]
        if config.sigma == "learned":
            self.pixel_log_var = nn.Parameter(torch.zeros(()))
        else:
            fixed = torch.tensor(2 * math.log(config.sigma or 1.0))
            self.register_buffer("pixel_log_var", fixed, persistent=False)

    def turns(self) -> tuple[Turn, ...]:
        """A game of one."""
        return (Turn("elbo", tuple(self.parameters())),)

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), (B, Z) each, for x of shape (B, *sample_shape)."""
        mean, log_var = Encode(self)(x, labels)
        return mean.to(x.dtype), log_var.to(x.dtype)  # under autocast the network's output is bfloat16

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """The mean image of p(x|z), in [0, 1], (B, *sample_shape), for z of shape (B, Z)."""
        image: Tensor = Decode(self)(z, labels)
        return image

    def log_likelihood(self, x: Tensor, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(x|z) in nats, for z of shape (..., B, Z)."""
        log_var = self.pixel_log_var.clamp(-LOG_VAR_LIMIT, LOG_VAR_LIMIT)
        decoded = self.decoder(join(z, labels, self.config.classes)).to(x.dtype)
        return self.likelihood.log_density(x.flatten(1), decoded, log_var)

    def loss(self, batch: Batch, turn: Turn, progress: Progress) -> Terms:
        """Minus the ELBO, its KL weighed by `beta_at` and with free bits; the log shows the plain terms."""
        mean, log_var = self.encode(batch.x, batch.labels)
        z = reparameterize(mean, log_var, torch.randn_like(mean))
        log_likelihood = self.log_likelihood(batch.x, z, batch.labels)
        kl = kl_to_standard_normal(mean, log_var)
        paid = kl.mean()
        if self.config.free_bits_nats:
            kl_of_each_latent = kl_to_standard_normal(mean[..., None], log_var[..., None])
            paid = free_bits(kl_of_each_latent.mean(0), self.config.free_bits_nats)
        total = self.beta_at(progress.step) * paid - log_likelihood.mean()
        return Terms(total, self.named(log_likelihood, kl))

    def validate(self, batch: Batch) -> Terms:
        """Minus the ELBO with beta = 1: the same quantity whatever the settings."""
        mean, log_var = self.encode(batch.x, batch.labels)
        z = reparameterize(mean, log_var, torch.randn_like(mean))
        log_likelihood = self.log_likelihood(batch.x, z, batch.labels)
        named = self.named(log_likelihood, kl_to_standard_normal(mean, log_var))
        return Terms(named[self.validation_metric], named)

    def named(self, log_likelihood: Tensor, kl: Tensor) -> dict[str, Tensor]:
        """The terms as the log shows them, averaged over the batch."""
        return {
            "negative_elbo_nats": -elbo(log_likelihood, kl).mean(),
            "reconstruction_nats": -log_likelihood.mean(),
            "kl_nats": kl.mean(),
        }

    def beta_at(self, step: int | Tensor) -> float | Tensor:
        """The weight of the KL at `step`: linear warm-up, then beta; in cycles as Fu et al. 2019
        (arXiv:1903.10145) have it.
        """
        warmup, cycle = self.config.kl_warmup_steps, self.config.kl_cycle_steps
        step = step % cycle if cycle else step
        return self.config.beta * (torch.as_tensor(step / warmup).clamp(max=1.0) if warmup else 1.0)

    def log_weights(self, x: Tensor, samples: int, labels: Tensor | None = None) -> Tensor:
        """log p(x, z_k) / q(z_k|x) in nats, (samples, B), what importance sampling needs."""
        mean, log_var = self.encode(x, labels)
        draws = torch.randn(samples, *mean.shape, dtype=mean.dtype, device=x.device)
        z = reparameterize(mean, log_var, draws)
        prior = log_density(z, torch.zeros_like(mean), torch.zeros_like(log_var))
        return self.log_likelihood(x, z, labels) + prior - log_density(z, mean, log_var)

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, condition: object | None = None) -> Tensor:
        """`n` mean images of latents drawn from the prior, in [0, 1]; `condition` is `{"label": 3}` or a list
        of labels, in a conditional VAE, and by default each class in turn.
        """
        labels = sample_labels(condition, n, self.config.classes)
        z = noise.normal([seed] * n, range(n), (self.config.latent_dim,))
        weight = next(self.parameters())
        on_device = None if labels is None else labels.to(weight.device)
        return self.decode(torch.from_numpy(z).to(weight), on_device)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, labels: Tensor | None = None) -> Tensor | None:
        """The mean image at the mean of q(z|x); None when the labels it needs are not there."""
        if self.config.classes is not None and labels is None:
            return None
        return self.decode(self.encode(x, labels)[0], labels)

    def diagnose(self, batches: Iterable[Batch]) -> dict[str, float | list[float]]:
        """`active_units`, and `kl_per_dimension`: the mean KL of each latent, in nats."""
        encoded = [self.encode(batch.x, batch.labels) for batch in batches]
        mean, log_var = (torch.cat(part) for part in zip(*encoded, strict=True))
        if len(mean) < 2:
            return {}
        kl = kl_to_standard_normal(mean[..., None], log_var[..., None]).mean(0)
        return {"active_units": int(active(mean).sum()), "kl_per_dimension": kl.tolist()}

    def figures(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The ELBO and the importance-weighted bound, in nats: means over examples, with standard errors."""
        elbos, iwaes = [], []
        for batch in batches:
            mean, log_var = self.encode(batch.x, batch.labels)
            z = reparameterize(mean, log_var, torch.randn_like(mean))
            log_likelihood = self.log_likelihood(batch.x, z, batch.labels)
            elbos.append(elbo(log_likelihood, kl_to_standard_normal(mean, log_var)))
            iwaes.append(iwae(self.log_weights(batch.x, IWAE_SAMPLES, batch.labels)))
        figures = mean_and_error("elbo_nats", elbos) | mean_and_error("iwae_nats", iwaes)
        return figures | {"iwae_samples": IWAE_SAMPLES, "examples": sum(map(len, elbos))}

    def graphs(self) -> tuple[Graph, ...]:
        """`decode`: z to the mean image x; `encode`: x to the mean and log-variance of q(z|x). Both also take
        the label of each row in a conditional VAE.
        """
        label, labels = label_spec(self.config.classes), example_labels(2, self.config.classes)
        x, z = self.sample_spec(), TensorSpec(name="z", shape=("batch", self.config.latent_dim))
        x = picture_spec(("batch", *x.shape))
        mean, log_var = (TensorSpec(name=name, shape=z.shape) for name in ("mean", "log_var"))
        example = torch.rand(2, *self.config.sample_shape), torch.randn(2, self.config.latent_dim)
        return (
            Graph("decode", Decode(self), (z, *label), (x,), (example[1], *labels)),
            Graph("encode", Encode(self), (x, *label), (mean, log_var), (example[0], *labels)),
        )

    def sampler(self) -> LatentSampler:
        """Draw z from the prior and decode it."""
        return latent_sampler("decode", self.config.latent_dim, self.config.classes)

    def sample_spec(self) -> TensorSpec:
        """An image in [0, 1]."""
        return picture_spec(self.config.sample_shape)
