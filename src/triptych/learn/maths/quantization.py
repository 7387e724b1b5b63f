"""From vectors to a few codes and back: vector quantisation, and finite scalar quantisation.

Vectors lie along the last axis, Z. A function of vectors gives one value per vector; what a codebook keeps
account of is one row per code.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def nearest(z: Float[Tensor, "*B Z"], codebook: Float[Tensor, "K Z"]) -> Int[Tensor, "*B"]:
    r"""The number of the code that lies nearest to each vector.

    $$ \arg\min_k \bigl( \lVert e_k \rVert^2 - 2\, z \cdot e_k \bigr) \tag{vq.nearest} $$

    Returns: one index per vector; of equally near codes the first.
    Source: van den Oord et al. 2017, arXiv:1711.00937, eq. 1; as published, without the part of the squared
    distance that is the same for every code.
    """
    return (codebook.square().sum(-1) - 2 * z @ codebook.T).argmin(-1)  # (vq.nearest)


def straight_through(z: Float[Tensor, "*B Z"], code: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B Z"]:
    r"""The code, with the gradient of the vector it stands for.

    $$ z + \mathrm{sg}(e - z) \tag{vq.straight_through} $$

    Source: Bengio et al. 2013, arXiv:1308.3432, section 4; van den Oord et al. 2017, arXiv:1711.00937, 3.2.
    """
    return z + (code - z).detach()  # (vq.straight_through)


def commitment(z: Float[Tensor, "*B Z"], code: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B"]:
    r"""What an encoder pays for a vector that is far from its code; no gradient reaches the code.

    $$ \lVert z - \mathrm{sg}(e) \rVert^2 \tag{vq.commitment} $$

    Returns: one value per vector, summed over Z, in squared units of the latent space.
    Source: van den Oord et al. 2017, arXiv:1711.00937, eq. 3, third term without its weight.
    """
    return (z - code.detach()).square().sum(-1)  # (vq.commitment)


def codebook_loss(z: Float[Tensor, "*B Z"], code: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B"]:
    r"""What a code pays for being far from the vectors it stands for; no gradient reaches these.

    $$ \lVert \mathrm{sg}(z) - e \rVert^2 \tag{vq.codebook_loss} $$

    Returns: one value per vector, summed over Z, in squared units of the latent space.
    Source: van den Oord et al. 2017, arXiv:1711.00937, eq. 3, second term; as published.
    """
    return (z.detach() - code).square().sum(-1)  # (vq.codebook_loss)


def per_code(values: Float[Tensor, "B *D"], indices: Int[Tensor, "B"], codes: int) -> Float[Tensor, "K *D"]:
    r"""What each code gets of a batch: the sum of its vectors' values, as a part of the batch.

    $$ \tfrac1B \sum_{b:\, k_b = k} v_b \tag{vq.per_code} $$

    Being means over the batch, those of several batches or processes are averaged like any other.

    Returns: one row per code; for values of 1 the share of the batch that the code stands for.
    Source: van den Oord et al. 2017, arXiv:1711.00937, appendix A.1. Deviation: divided by B, which cancels.
    """
    empty = values.new_zeros(codes, *values.shape[1:])
    return empty.index_add(0, indices, values) / len(values)  # (vq.per_code)


def ema(average: Float[Tensor, "K *D"], fresh: Float[Tensor, "K *D"], decay: float) -> Float[Tensor, "K *D"]:
    r"""The moving average of what each code gets.

    $$ \gamma N + (1 - \gamma)\, n \tag{vq.ema} $$

    Source: van den Oord et al. 2017, arXiv:1711.00937, appendix A.1, eq. 6 and 7; as published.
    """
    return decay * average + (1 - decay) * fresh  # (vq.ema)


def code(total: Float[Tensor, "K Z"], usage: Float[Tensor, "K"]) -> Float[Tensor, "K Z"]:
    r"""Each code as the mean of the vectors it stood for.

    $$ e_k = m_k / N_k \tag{vq.code} $$

    Args:
        total: moving average of the sums of vectors.
        usage: moving average of the shares.

    Source: van den Oord et al. 2017, arXiv:1711.00937, appendix A.1, eq. 8; as published.
    """
    return total / usage[:, None]  # (vq.code)


def variance(
    square: Float[Tensor, "K"], usage: Float[Tensor, "K"], codebook: Float[Tensor, "K Z"]
) -> Float[Tensor, "K"]:
    r"""How widely the vectors of each code lie around it: the variance of one dimension.

    $$ \sigma_k^2 = \bigl( s_k / N_k - \lVert e_k \rVert^2 \bigr) / Z \tag{vq.variance} $$

    Args:
        square: moving average of the sums of squared lengths.

    Returns: one value per code, 0 or more.
    Source: the variance of a sample, averaged over dimensions.
    """
    spread = square / usage - codebook.square().sum(-1)
    return (spread / codebook.shape[-1]).clamp(min=0)  # (vq.variance)


def redrawn(
    codebook: Float[Tensor, "K Z"], variance: Float[Tensor, "K"], noise: Float[Tensor, "K Z"]
) -> Float[Tensor, "K Z"]:
    r"""New places for codes that nobody uses: draws around codes that many use.

    $$ e_j + \sigma_j \epsilon, \quad j \sim N_j,\ \epsilon \sim N(0, I) \tag{vq.redrawn} $$

    Args:
        codebook: the codes e_j that were drawn, in proportion to their use.
        variance: of each of them.

    Source: Dhariwal et al. 2020, arXiv:2005.00341, section 3.1 (random restarts). Deviation: there a
    dead code goes to an encoder output of the batch, here to a draw from the mixture of Gaussians that the
    moving averages describe, which every process can make alone and alike.
    """
    return codebook + variance.sqrt()[:, None] * noise  # (vq.redrawn)


def perplexity(usage: Float[Tensor, "*B K"]) -> Float[Tensor, "*B"]:
    r"""How many codes, used equally often, would be as varied.

    $$ \exp\bigl( -\sum_k p_k \log p_k \bigr) \tag{vq.perplexity} $$

    Args:
        usage: p, shares that sum to 1.

    Returns: from 1, when all vectors have one code, to K.
    Source: the exponential of Shannon's entropy; the measure of van den Oord et al. 2017 in their own code.
    """
    return (-torch.xlogy(usage, usage).sum(-1)).exp()  # (vq.perplexity)


def bounded(z: Float[Tensor, "*B Z"], levels: Int[Tensor, "Z"]) -> Float[Tensor, "*B Z"]:
    r"""Each dimension squeezed into as many unit steps as it has levels.

    $$ \tfrac{L - 1}{2} (1 + \tanh z) \tag{fsq.bounded} $$

    Returns: values from 0 to L - 1, to be rounded.
    Source: Mentzer et al. 2023, arXiv:2309.15505, appendix A.1. Deviation: steps are counted from 0, and
    z = 0 stays on the border of two levels where L is even, which a bias before it can move.
    """
    return (levels - 1) / 2 * (1 + z.tanh())  # (fsq.bounded)


def index_of(digits: Int[Tensor, "*B Z"], places: Int[Tensor, "Z"]) -> Int[Tensor, "*B"]:
    r"""The levels of all dimensions as one number.

    $$ \sum_z q_z P_z, \quad P_z = \prod_{y<z} L_y \tag{fsq.index} $$

    Args:
        places: P, the value of each digit's place.

    Source: Mentzer et al. 2023, arXiv:2309.15505, section 3; as published.
    """
    return (digits * places).sum(-1)  # (fsq.index)


def digits_of(
    index: Int[Tensor, "*B"], places: Int[Tensor, "Z"], levels: Int[Tensor, "Z"]
) -> Int[Tensor, "*B Z"]:
    r"""The level of each dimension: what `index_of` made one number of.

    $$ q_z = \lfloor k / P_z \rfloor \bmod L_z \tag{fsq.digits} $$

    Source: Mentzer et al. 2023, arXiv:2309.15505, section 3; as published.
    """
    return index[..., None] // places % levels  # (fsq.digits)
