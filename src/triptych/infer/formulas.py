"""The formulas an engine computes itself, in numpy and float64; tags in brackets are those of docs/maths.md.

Each row's numbers depend on that row alone, to the last bit: sums run along the last axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Array = np.ndarray

LOG_2_PI = math.log(2 * math.pi)
MAX_MEAN = 1 - 2.0**-25  # a float32 mean that rounds to 1 lies above this
MIN_MEAN = float(np.finfo(np.float32).tiny)
PARALLEL = 1e-6  # radians between directions from which a circle cannot be told from a line


def reparameterize(mean: Array, log_var: Array, noise: Array) -> Array:
    """Standard normal `noise` as a sample of N(mean, exp(log_var)); see `maths.gaussian.reparameterize`."""
    z: Array = mean + np.exp(0.5 * log_var) * noise  # (vae.reparameterize)
    return z


def log_density(x: Array, mean: Array, log_var: Array | float) -> Array:
    """Log-density of N(mean, exp(log_var)) at x, in nats, summed over the last axis; see
    `maths.gaussian.log_density`.
    """
    delta = (x - mean) * np.exp(-0.5 * np.asarray(log_var))
    density: Array = -0.5 * (np.square(delta) + log_var + LOG_2_PI).sum(-1)  # (gaussian.log_density)
    return density


def bernoulli(x: Array, mean: Array, _: float = 0.0) -> Array:
    """Bernoulli log-likelihood of x in nats, summed over the last axis; see `maths.likelihoods.bernoulli`.

    Deviation: from the mean, because that is what a decode graph gives, and not from logits. A float32 mean
    cannot be told from 1 above logits of 17.3, so larger logits count as 17.3.
    """
    m = np.clip(mean, MIN_MEAN, MAX_MEAN)
    likelihood: Array = (x * np.log(m) + (1 - x) * np.log1p(-m)).sum(-1)  # (likelihood.bernoulli)
    return likelihood


def laplace(x: Array, mean: Array, log_var: float) -> Array:
    """Laplace log-likelihood of x in nats, summed over the last axis; see
    `maths.likelihoods.laplace_on_logits`.
    """
    b = math.exp(0.5 * log_var) / math.sqrt(2)
    likelihood: Array = -(np.abs(x - mean) / b + math.log(2 * b)).sum(-1)  # (likelihood.laplace)
    return likelihood


LIKELIHOODS: dict[str, Callable[[Array, Array, float], Array]] = {
    "bernoulli": bernoulli,
    "gaussian": log_density,
    "laplace": laplace,
}


def kl_bernoulli(mean: Array, other: Array, _: float = 0.0) -> Array:
    """KL from Bernoulli(mean) to Bernoulli(other), in nats, summed over the last axis; means as `bernoulli`
    takes them."""
    m, o = np.clip(mean, MIN_MEAN, MAX_MEAN), np.clip(other, MIN_MEAN, MAX_MEAN)
    divergence: Array = (m * np.log(m / o) + (1 - m) * (np.log1p(-m) - np.log1p(-o))).sum(-1)
    return divergence


def kl_gaussian(mean: Array, other: Array, log_var: Array | float, other_log_var: Array | float) -> Array:
    """KL from N(mean, exp(log_var)) to N(other, exp(other_log_var)), in nats, summed over the last axis."""
    ratio = np.asarray(log_var) - np.asarray(other_log_var)
    apart = np.square(mean - other) * np.exp(-np.asarray(other_log_var))
    divergence: Array = 0.5 * (np.exp(ratio) - ratio - 1 + apart).sum(-1)
    return divergence


def frechet(a: Array, b: Array) -> float:
    r"""The squared Fréchet distance between normal distributions fitted to the rows of `a` and of `b`.

    $$ |\mu_a - \mu_b|^2 + \mathrm{tr}\big(\Sigma_a + \Sigma_b - 2 (\Sigma_a \Sigma_b)^{1/2}\big) $$

    Source: Dowson & Landau 1982, "The Fréchet distance between multivariate normal distributions", eq. 4.
    """
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    of_product = np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(min=0)
    spread = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.sqrt(of_product).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + spread)


def log_weights(log_likelihood: Array, z: Array, mean: Array, log_var: Array) -> Array:
    """log p(x, z) / q(z|x) in nats, for a standard normal prior; see `VAE.log_weights`."""
    prior = log_density(z, np.zeros_like(z), 0.0)
    weights: Array = log_likelihood + prior - log_density(z, mean, log_var)
    return weights


def iwae(log_weights: Array) -> Array:
    """The importance-weighted bound in nats, over the last axis; see `maths.bounds.iwae`."""
    largest = log_weights.max(-1, keepdims=True)
    total = np.log(np.exp(log_weights - largest).sum(-1)) + largest[..., 0]
    bound: Array = total - math.log(log_weights.shape[-1])  # (vae.iwae)
    return bound


def linear(a: Array, b: Array, t: Array) -> Array:
    """Points on the line from `a` to `b`, (D,) each: one row for each t in [0, 1]."""
    points: Array = (1 - t[:, None]) * a + t[:, None] * b
    return points


def spherical(a: Array, b: Array, t: Array) -> Array:
    """Points on the arc from `a` to `b`, (D,) each: one row for each t in [0, 1].

    A line between two draws from N(0, I) passes where there are none, nearer to 0; an arc keeps their length.

    Source: Shoemake 1985, "Animating rotation with quaternion curves"; for latents White 2016,
    arXiv:1609.04468, section 2.1. Deviation: a line where the two point the same way, or opposite ways.
    """
    lengths = float(np.sqrt(np.dot(a, a) * np.dot(b, b)))
    cosine = float(np.dot(a, b)) / lengths if lengths > 0 else 1.0
    angle = math.acos(min(1.0, max(-1.0, cosine)))
    if math.sin(angle) < PARALLEL:
        return linear(a, b, t)
    of_a, of_b = np.sin((1 - t) * angle), np.sin(t * angle)
    points: Array = (of_a[:, None] * a + of_b[:, None] * b) / math.sin(angle)
    return points
