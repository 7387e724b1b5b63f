"""Multi-head and grouped-query self-attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from triptych.learn.maths.attention import attend
from triptych.learn.nn.cache import KeyValueCache
from triptych.learn.nn.mask import Mask
from triptych.learn.nn.rotary import Rotary


class SelfAttention(nn.Module):
    """Each of `heads` queries shares its key and value with `heads / kv_heads - 1` others.

    `qkv` holds the projections packed row-wise, queries first, then keys, then values: three matrix products
    in one.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2; Ainslie et al. 2023, arXiv:2305.13245.
    """

    def __init__(
        self, width: int, heads: int, kv_heads: int, *, bias: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.dropout = heads, kv_heads, width // heads, dropout
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * self.head_dim, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)

    def forward(
        self,
        x: Tensor,
        mask: Mask,
        rotary: Rotary | None = None,
        cache: KeyValueCache | None = None,
        layer: int = 0,
        key_lengths: Tensor | None = None,
    ) -> Tensor:
        """Map x of shape (B, T, width) to the same shape.

        Args:
            rotary: turns queries and keys by their position; None if positions are in x already.
            cache: the past of every layer; x then continues it.
            layer: which of the cache's layers is this one's.
            key_lengths: how many positions of each example are real, (B,); the rest is padding.
        """
        start = cache.length if cache else 0
        query, key, value = self.project(x)
        if rotary is not None:
            query, key = rotary(query, start), rotary(key, start)
        if cache is not None:
            key, value = cache.extend(layer, key, value)
        allowed = None
        if start or key_lengths is not None or not mask.is_plain_causal:
            positions = torch.arange(start + x.shape[1], device=x.device)
            allowed = mask.allowed(positions[start:], positions, key_lengths)
        dropout = self.dropout if self.training else 0.0
        mixed = attend(query, self.shared(key), self.shared(value), allowed, dropout)
        merged: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return merged

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, heads, T, D), keys and values (B, kv_heads, T, D)."""
        packed = self.qkv(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        query, key, value = packed.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        return query, key, value

    def shared(self, x: Tensor) -> Tensor:
        """Keys or values as each query head sees them, (B, heads, S, D)."""
        return x if self.heads == self.kv_heads else x.repeat_interleave(self.heads // self.kv_heads, dim=1)
