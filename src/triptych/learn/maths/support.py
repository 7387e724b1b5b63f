"""How much of the data a cloud of samples reaches, and how much of a latent space is in use."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def covered(real: Float[Tensor, "B D"], fake: Float[Tensor, "C D"], neighbours: int) -> Bool[Tensor, "B"]:
    r"""Whether a sample lies nearer to each real example than that example's k-th nearest real neighbour.

    $$ \min_c \lVert x_b - \tilde x_c \rVert \le \mathrm{NND}_k(x_b) \tag{support.coverage} $$

    Args:
        neighbours: k, below B; 5 in the source.

    Returns: one answer per real example; their mean is the coverage. Of as many samples of the data's own
    distribution it is about 1 - 2^-k.
    Source: Naeem et al. 2020, arXiv:2002.09797, eq. 4; as published.
    """
    radius = torch.cdist(real, real).kthvalue(neighbours + 1, dim=1).values  # the nearest is itself
    return torch.cdist(real, fake).min(1).values <= radius  # (support.coverage)


def spread(x: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    r"""The mean distance between two examples of a cloud.

    $$ \tfrac{2}{B(B-1)} \sum_{b<c} \lVert x_b - x_c \rVert \tag{support.spread} $$

    Returns: one value, in the units of x; 0 when all examples are one.
    Source: the mean of the off-diagonal distances.
    """
    return torch.nn.functional.pdist(x).mean()  # (support.spread)


def active(mean: Float[Tensor, "B Z"], threshold: float = 0.01) -> Bool[Tensor, "Z"]:
    r"""Which latents carry anything about x: those whose posterior mean moves with it.

    $$ \mathrm{Var}_x(\mu_z(x)) > \delta \tag{vae.active_units} $$

    Args:
        mean: of q(z|x), for B examples, 2 or more.
        threshold: delta, a variance; the prior's is 1.

    Returns: one answer per latent; their sum is the number of active units.
    Source: Burda et al. 2016, arXiv:1509.00519, section 5.2; as published.
    """
    return mean.var(0) > threshold  # (vae.active_units)


def high_quality(x: Float[Tensor, "B D"], centres: Float[Tensor, "M D"], sigma: float) -> Bool[Tensor, "B"]:
    r"""Whether each sample of a toy lies within three deviations of a mode.

    $$ \min_m \lVert x_b - c_m \rVert \le 3 \sigma \tag{modes.high_quality} $$

    Source: Srivastava et al. 2017, arXiv:1705.07761, section 4.1; Lin et al. 2018, arXiv:1712.04086, 4.1.
    """
    return torch.cdist(x, centres).min(1).values <= 3 * sigma  # (modes.high_quality)


def modes_hit(x: Float[Tensor, "B D"], centres: Float[Tensor, "M D"], sigma: float) -> Bool[Tensor, "M"]:
    r"""Whether each mode of a toy holds at least one sample of high quality.

    $$ \min_b \lVert x_b - c_m \rVert \le 3 \sigma \tag{modes.hit} $$

    Args:
        x: one sample or more.
        centres: c, more than 6 sigma apart, so that no sample belongs to two.

    Source: as `high_quality`.
    """
    return torch.cdist(x, centres).min(0).values <= 3 * sigma  # (modes.hit)
