"""Diagonal Gaussians: density, divergence, and samples that carry gradients."""

import math

from jaxtyping import Float
from torch import Tensor

LOG_2_PI = math.log(2 * math.pi)


def log_density(
    x: Float[Tensor, "*#B Z"], mean: Float[Tensor, "*#B Z"], log_var: Float[Tensor, "*#B Z"]
) -> Float[Tensor, "*B"]:
    r"""Log-density of N(mean, exp(log_var)) at x, in nats, with its constant.

    $$ -\tfrac12 \sum_z \bigl( \delta_z^2 + \log\sigma_z^2 + \log 2\pi \bigr),
    \quad \delta_z = (x_z - \mu_z) / \sigma_z \tag{gaussian.log_density} $$

    Returns: one value per example, summed over Z.
    Source: the definition of the normal density.
    """
    delta = (x - mean) * (-0.5 * log_var).exp()
    return -0.5 * (delta.square() + log_var + LOG_2_PI).sum(-1)  # (gaussian.log_density)


def kl_to_standard_normal(mean: Float[Tensor, "*B Z"], log_var: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B"]:
    r"""KL from N(mean, exp(log_var)) to N(0, I), in nats.

    $$ \tfrac12 \sum_z (\mu_z^2 + \sigma_z^2 - \log\sigma_z^2 - 1) \tag{vae.kl} $$

    Returns: one value per example, summed over Z, never averaged.
    Source: Kingma & Welling 2014, arXiv:1312.6114, app. B. Deviation: sign, because the paper gives -KL.

    >>> from torch import tensor
    >>> round(kl_to_standard_normal(tensor([1.0, -0.5]), tensor([1.0, 0.5]).log()).item(), 4)
    0.7216
    """
    return 0.5 * (mean.square() + log_var.exp() - log_var - 1).sum(-1)  # (vae.kl)


def reparameterize(
    mean: Float[Tensor, "*#B Z"], log_var: Float[Tensor, "*#B Z"], noise: Float[Tensor, "*B Z"]
) -> Float[Tensor, "*B Z"]:
    r"""A sample of N(mean, exp(log_var)) as a differentiable function of mean and log_var.

    $$ z = \mu + \sigma \epsilon, \quad \epsilon \sim N(0, I) \tag{vae.reparameterize} $$

    Args:
        noise: the standard normal draw; its leading axes may exceed the mean's, for several samples each.

    Source: Kingma & Welling 2014, arXiv:1312.6114, section 2.4; as published.
    """
    return mean + (0.5 * log_var).exp() * noise  # (vae.reparameterize)
