"""Likelihoods p(x | z) of an image: what a decoder's output says about the pixels.

To add one: write its log-density here, as one function with one tag, and name it in `LIKELIHOODS` at the end
of this file. `VAE.Config(likelihood="...")`, the decode graph, the contract tests and the laws then cover it.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from triptych.learn.maths import gaussian


def bernoulli(x: Float[Tensor, "*#B D"], logits: Float[Tensor, "*B D"]) -> Float[Tensor, "*B"]:
    r"""Bernoulli log-likelihood of x, in nats, from logits; x in [0, 1] may be a grey level.

    $$ \sum_d \bigl( x_d a_d - \log(1 + e^{a_d}) \bigr) \tag{likelihood.bernoulli} $$

    Returns: one value per example, summed over D.
    Source: Kingma & Welling 2014, arXiv:1312.6114, app. C.1, with y = sigmoid(a) written out so that no
    log(0) can occur. For x strictly between 0 and 1 it is the usual cross-entropy, which is not a normalised
    density.
    """
    return (x * logits - softplus(logits)).sum(-1)  # (likelihood.bernoulli)


def gaussian_on_logits(
    x: Float[Tensor, "*#B D"], logits: Float[Tensor, "*B D"], log_var: Float[Tensor, ""]
) -> Float[Tensor, "*B"]:
    r"""Gaussian log-likelihood of x in nats, with its constant; the mean is sigmoid(logits), an image.

    $$ \log N\bigl(x;\ \mathrm{sigmoid}(a),\ \sigma^2 I\bigr) \tag{likelihood.gaussian} $$

    Args:
        log_var: one log-variance for every pixel, fixed or learned.

    Returns: one value per example, summed over D.
    Source: Kingma & Welling 2014, arXiv:1312.6114, app. C.2. Deviation: one sigma for all pixels, because a
    variance per pixel lets the density diverge on constant pixels (Rybkin et al. 2021, arXiv:2006.13202).
    """
    return gaussian.log_density(x, logits.sigmoid(), log_var.expand(x.shape[-1]))  # (likelihood.gaussian)


def laplace_on_logits(
    x: Float[Tensor, "*#B D"], logits: Float[Tensor, "*B D"], log_var: Float[Tensor, ""]
) -> Float[Tensor, "*B"]:
    r"""Laplace log-likelihood of x in nats, with its constant; the mean is sigmoid(logits), an image.

    $$ -\sum_d \bigl( \lvert x_d - \mathrm{sigmoid}(a_d) \rvert / b + \log 2b \bigr),
    \quad b = \sigma / \sqrt2 \tag{likelihood.laplace} $$

    Args:
        log_var: one log-variance, log sigma^2, for every pixel, fixed or learned.

    Returns: one value per example, summed over D; up to its constant the L1 distance, in units of b.
    Source: Laplace 1774, "Mémoire sur la probabilité des causes par les évènements".
    """
    b = (0.5 * log_var).exp() / math.sqrt(2)
    return -((x - logits.sigmoid()).abs() / b + (2 * b).log()).sum(-1)  # (likelihood.laplace)


class Likelihood(NamedTuple):
    """A likelihood as a decoder needs it.

    `log_density(x, output, log_var)` is in nats per example, `mean(output)` is an image in [0, 1].
    `has_scale` says whether `log_var` matters: if not, a `sigma` in the config is an error.
    """

    log_density: Callable[[Tensor, Tensor, Tensor], Tensor]
    mean: Callable[[Tensor], Tensor]
    has_scale: bool


LIKELIHOODS: dict[str, Likelihood] = {
    "bernoulli": Likelihood(lambda x, logits, _: bernoulli(x, logits), torch.sigmoid, has_scale=False),
    "gaussian": Likelihood(gaussian_on_logits, torch.sigmoid, has_scale=True),
    "laplace": Likelihood(laplace_on_logits, torch.sigmoid, has_scale=True),
}
