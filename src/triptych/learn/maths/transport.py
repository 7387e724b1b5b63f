"""Distances between two clouds of points."""

import torch
from jaxtyping import Float
from torch import Tensor

from triptych.bundle import noise


def directions(count: int, dimensions: int, seed: int = 0) -> Float[Tensor, "P D"]:
    """`count` unit vectors, uniform on the sphere, the same for the same seed."""
    draws = torch.from_numpy(noise.normal([seed] * count, range(count), (dimensions,)))
    return torch.nn.functional.normalize(draws, dim=-1)


def sliced_wasserstein_1(
    x: Float[Tensor, "B D"], y: Float[Tensor, "B D"], projections: Float[Tensor, "P D"]
) -> Float[Tensor, "P"]:
    r"""Wasserstein-1 distance between the clouds x and y, seen along each direction.

    $$ \tfrac1B \sum_b \bigl| (x u)_{(b)} - (y u)_{(b)} \bigr| \tag{transport.sliced_w1} $$

    Args:
        projections: unit vectors u, see `directions`; (b) means sorted.

    Returns: one value per direction; their mean is the sliced distance.
    Source: Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures". Deviation: exponent
    1 where they have 2, because it is in the units of the data.
    """
    u = projections.T
    return ((x @ u).sort(dim=0).values - (y @ u).sort(dim=0).values).abs().mean(0)  # (transport.sliced_w1)


def frechet(x: Float[Tensor, "B D"], y: Float[Tensor, "C D"]) -> Float[Tensor, ""]:
    r"""Squared Fréchet distance between Gaussians fitted to two clouds.

    $$ \lVert \mu_x - \mu_y \rVert^2
    + \mathrm{tr}\bigl( \Sigma_x + \Sigma_y - 2 (\Sigma_x \Sigma_y)^{1/2} \bigr) \tag{transport.frechet} $$

    Returns: one value; zero for two clouds of equal mean and covariance.
    Source: Dowson & Landau 1982, "The Fréchet distance between multivariate normal distributions", eq. 4.
    """
    shift, cov_x, cov_y = x.mean(0) - y.mean(0), covariance(x), covariance(y)
    overlap: Tensor = torch.linalg.eigvals(cov_x @ cov_y).real.clamp(min=0).sqrt().sum()
    return shift.square().sum() + cov_x.trace() + cov_y.trace() - 2 * overlap  # (transport.frechet)


def covariance(x: Float[Tensor, "B D"]) -> Float[Tensor, "D D"]:
    """The sample covariance of a cloud."""
    return torch.cov(x.T).view(x.shape[1], x.shape[1])


def principal_axes(x: Float[Tensor, "B D"], count: int) -> tuple[Float[Tensor, "D"], Float[Tensor, "D P"]]:
    """The centre of a cloud and its `count` directions of largest variance (at most D), as unit columns."""
    centre = x.mean(0)
    _, vectors = torch.linalg.eigh(covariance(x))
    return centre, vectors[:, -count:]
