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


def slope(critic: Callable[[Tensor], Tensor], x: Float[Tensor, "B D"]) -> Float[Tensor, "B"]:
    r"""The length of the critic's gradient at x: 1 almost everywhere when the critic estimates a distance.

    $$ \lVert \nabla_x f(x) \rVert_2 \tag{wgan.slope} $$

    Args:
        critic: f, one score per example, with no coupling between examples (no batch normalisation).

    Returns: one value per example; the norm is taken over D. It carries gradients.
    Source: Gulrajani et al. 2017, arXiv:1704.00028, proposition 1 and eq. 3.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    norm: Tensor = vector_norm(gradient, dim=-1)  # (wgan.slope)
    return norm


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], x: Float[Tensor, "B D"], penalty_weight: float
) -> Float[Tensor, "B"]:
    r"""What the critic pays for slopes other than 1 at x.

    $$ \lambda \bigl( \lVert \nabla_x f(x) \rVert_2 - 1 \bigr)^2 \tag{wgan.penalty} $$

    Args:
        critic: f, as `slope` takes it.
        x: where to look, see `interpolate`.
        penalty_weight: lambda.

    Returns: one value per example; the norm is taken per example, over D.
    Source: Gulrajani et al. 2017, arXiv:1704.00028, eq. 3; as published (two-sided).
    """
    return penalty_weight * (slope(critic, x) - 1).square()  # (wgan.penalty)


def overfitting(
    training_estimate: Float[Tensor, "*B"], validation_estimate: Float[Tensor, "*B"]
) -> Float[Tensor, "*B"]:
    r"""How much of what the critic sees holds for its training examples only: 0 nothing, 1 all of it.

    $$ \frac{W_{\text{train}} - W_{\text{validation}}}{W_{\text{train}}},
    \quad W = E[f(x)] - E[f(\tilde x)] \tag{wgan.overfitting} $$

    Args:
        training_estimate: the critic's estimate of the distance on examples it was trained on, not 0.
        validation_estimate: the same on examples it has not seen.

    Source: Karras et al. 2020, arXiv:2006.06676, eq. 1, r_v, where the two means over samples cancel.
    """
    return (training_estimate - validation_estimate) / training_estimate  # (wgan.overfitting)
