"""The Wasserstein game with a gradient penalty."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm


def critic_loss(real_score: Float[Tensor, "B"], fake_score: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    r"""What the critic pays: minus its estimate of the Wasserstein-1 distance.

    $$ f(\tilde x) - f(x) \tag{wgan.critic} $$

    Returns: one value per pair of a generated and a real example.
    Source: Gulrajani et al. 2017, arXiv:1704.00028, eq. 3, first two terms; as published.
    """
    return fake_score - real_score  # (wgan.critic)


def generator_loss(fake_score: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    r"""What the generator pays.

    $$ -f(G(z)) \tag{wgan.generator} $$

    Returns: one value per generated example.
    Source: Gulrajani et al. 2017, arXiv:1704.00028, alg. 1, line 12; as published.
    """
    return -fake_score  # (wgan.generator)


def interpolate(
    real: Float[Tensor, "B D"], fake: Float[Tensor, "B D"], alpha: Float[Tensor, "B 1"]
) -> Float[Tensor, "B D"]:
    r"""A point on the line between each pair of a real and a generated example.

    $$ \hat x = \alpha x + (1 - \alpha) \tilde x \tag{wgan.interpolate} $$

    Args:
        alpha: one number in [0, 1] per example, not per pixel.

    Source: Gulrajani et al. 2017, arXiv:1704.00028, alg. 1, line 6; as published.
    """
    return alpha * real + (1 - alpha) * fake  # (wgan.interpolate)


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], x: Float[Tensor, "B D"], penalty_weight: float
) -> Float[Tensor, "B"]:
    r"""What the critic pays for slopes other than 1 at x.

    $$ \lambda \bigl( \lVert \nabla_x f(x) \rVert_2 - 1 \bigr)^2 \tag{wgan.penalty} $$

    Args:
        critic: f, one score per example, with no coupling between examples (no batch normalisation).
        x: where to look, see `interpolate`.
        penalty_weight: lambda.

    Returns: one value per example; the norm is taken per example, over D.
    Source: Gulrajani et al. 2017, arXiv:1704.00028, eq. 3; as published (two-sided).
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    norm: Tensor = vector_norm(slope, dim=-1)
    return penalty_weight * (norm - 1).square()  # (wgan.penalty)
