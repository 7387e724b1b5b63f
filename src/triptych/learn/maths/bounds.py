"""Lower bounds of log p(x)."""

import math

from jaxtyping import Float
from torch import Tensor


def elbo(log_likelihood: Float[Tensor, "*B"], kl: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    r"""Evidence lower bound, in nats, from one sample of z per example.

    $$ \log p(x|z) - KL(q(z|x) \,\|\, p(z)) \tag{vae.elbo} $$

    Returns: one value per example.
    Source: Kingma & Welling 2014, arXiv:1312.6114, eq. 3; as published.
    """
    return log_likelihood - kl  # (vae.elbo)


def iwae(log_weights: Float[Tensor, "K *B"]) -> Float[Tensor, "*B"]:
    r"""Importance-weighted bound, in nats; tighter than the ELBO and rising with K in expectation.

    $$ \log \tfrac1K \sum_k w_k, \quad w_k = p(x, z_k) / q(z_k|x) \tag{vae.iwae} $$

    Args:
        log_weights: log w_k, in nats.

    Returns: one value per example; K = 1 is the ELBO with a sampled KL.
    Source: Burda et al. 2016, arXiv:1509.00519, eq. 8; as published, with logsumexp for stability.
    """
    return log_weights.logsumexp(0) - math.log(log_weights.shape[0])  # (vae.iwae)


def free_bits(kl: Float[Tensor, "*B Z"], floor_nats: float) -> Float[Tensor, "*B"]:
    r"""What the latents pay when each of them has `floor_nats` for free.

    $$ \sum_z \max(\lambda, KL_z) \tag{vae.free_bits} $$

    Args:
        kl: the KL of each latent, in nats, averaged over the batch as the source has it.

    Returns: the sum over Z; below the floor a latent has no gradient.
    Source: Kingma et al. 2016, arXiv:1606.04934, appendix C.8; as published, each latent being a group.
    """
    return kl.clamp(min=floor_nats).sum(-1)  # (vae.free_bits)
