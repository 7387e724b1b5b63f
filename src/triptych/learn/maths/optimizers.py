"""How a weight moves along its gradient: Adam with decoupled weight decay, and the bound on a gradient."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

EPSILON = 1e-8


def moment(
    average: Float[Tensor, "*W"], value: Float[Tensor, "*W"], beta: float | Float[Tensor, ""]
) -> Float[Tensor, "*W"]:
    r"""Exponential moving average of the gradient (its first moment) or of its square (its second).

    $$ \beta\, m + (1 - \beta)\, g \tag{adam.moment} $$

    Source: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; as published.
    """
    return beta * average + (1 - beta) * value  # (adam.moment)


def step_size(
    rate: Float[Tensor, ""], count: Float[Tensor, ""], betas: tuple[float, float]
) -> Float[Tensor, ""]:
    r"""The step size at update `count` (from 1), with both moments' bias corrections in it.

    $$ \eta \sqrt{1 - \beta_2^t} \, / \, (1 - \beta_1^t) \tag{adam.step_size} $$

    Source: Kingma & Ba 2015, arXiv:1412.6980, section 2; as published.
    """
    return rate * (1 - betas[1] ** count).sqrt() / (1 - betas[0] ** count)  # (adam.step_size)


def descent(
    mean: Float[Tensor, "*W"], square: Float[Tensor, "*W"], size: Float[Tensor, ""], floor: Float[Tensor, ""]
) -> Float[Tensor, "*W"]:
    r"""What an update takes from each weight.

    $$ \alpha_t \, m / (\sqrt v + \hat\epsilon) \tag{adam.descent} $$

    Args:
        mean: the first moment; `square` the second, both without bias correction.
        size: `step_size`.
        floor: epsilon-hat; sqrt(1 - beta2^t) times the epsilon of algorithm 1 makes the two forms equal.

    Source: Kingma & Ba 2015, arXiv:1412.6980, end of section 2; as published.
    """
    return size * mean / (square.sqrt() + floor)  # (adam.descent)


def decayed(weight: Float[Tensor, "*W"], rate: Float[Tensor, ""], decay: float) -> Float[Tensor, "*W"]:
    r"""The weight after its decay, apart from the gradient.

    $$ (1 - \eta \lambda)\, w \tag{adam.decay} $$

    Source: Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2; the schedule's factor is in eta.
    """
    return weight * (1 - rate * decay)  # (adam.decay)


def global_norm(gradients: Sequence[Tensor]) -> Float[Tensor, ""]:
    r"""The length of all gradients of a player, taken as one vector.

    $$ \textstyle\sqrt{\sum_i \lVert g_i \rVert^2} \tag{clip.norm} $$

    Source: Pascanu et al. 2013, arXiv:1211.5063, algorithm 1.
    """
    lengths = torch.stack([vector_norm(gradient) for gradient in gradients])
    return lengths.square().sum().sqrt()  # (clip.norm)


def clip_factor(norm: Float[Tensor, ""], limit: float) -> Float[Tensor, ""]:
    r"""What gradients of this global norm are multiplied by, so that their norm stays below the limit.

    $$ \min(1,\ c / \lVert g \rVert) \tag{clip.factor} $$

    Source: Pascanu et al. 2013, arXiv:1211.5063, algorithm 1; the norm is over all weights of a player. A
    small constant keeps 0 / 0 away.
    """
    return torch.clamp(limit / (norm + 1e-6), max=1.0)  # (clip.factor)
