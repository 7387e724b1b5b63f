"""Attention and rotary positions."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attend(
    query: Float[Tensor, "B N T D"],
    key: Float[Tensor, "B N S D"],
    value: Float[Tensor, "B N S D"],
    allowed: Bool[Tensor, "*M T S"] | None,
    dropout: float = 0.0,
) -> Float[Tensor, "B N T D"]:
    r"""Scaled dot-product attention over the keys that `allowed` marks.

    $$ \mathrm{softmax}\bigl( Q K^\top / \sqrt{D} + \log M \bigr) V \tag{attention.scaled} $$

    Args:
        allowed: M, true where a query may look; None is the plain causal mask, for which a faster kernel
            exists.
        dropout: the probability with which an attention weight is dropped, in [0, 1).

    Returns: one vector per query; zeros where a query may look nowhere.
    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1; as published, with a boolean mask.
    """
    causal = allowed is None
    return scaled_dot_product_attention(query, key, value, allowed, dropout, causal)  # (attention.scaled)


def rotate(
    x: Float[Tensor, "B N T D"], cos: Float[Tensor, "*M T half"], sin: Float[Tensor, "*M T half"]
) -> Float[Tensor, "B N T D"]:
    r"""Rotary positions: turn each pair (x_i, x_{i + D/2}) by its position's angle.

    $$ (x_1 \cos\theta - x_2 \sin\theta,\ x_2 \cos\theta + x_1 \sin\theta) \tag{attention.rotary} $$

    Args:
        cos, sin: of the angles of these positions, see `rotary_angles`; leading axes are as in `x`.

    Source: Su et al. 2021, arXiv:2104.09864, eq. 34. Deviation: pairs are split in halves (i, i + D/2) rather
    than neighbours, as GPT-NeoX does, because every fast kernel reads that layout; it is the same up to a
    permutation.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)  # (attention.rotary)


def rotary_angles(positions: int, head_dim: int, base: float = 10_000.0) -> Float[Tensor, "T half"]:
    r"""The angle of each position and pair, in radians.

    $$ \theta_{t,i} = t \cdot b^{-2i/D} \tag{attention.rotary_angles} $$

    Source: Su et al. 2021, arXiv:2104.09864, section 3.2.2; as published.
    """
    time, pair = (
        torch.arange(positions, dtype=torch.float64),
        torch.arange(head_dim // 2, dtype=torch.float64),
    )
    return time[:, None] * base ** (-2 * pair / head_dim)  # (attention.rotary_angles)
