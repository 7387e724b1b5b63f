"""Keys and values of the past, in memory that is taken once."""

from __future__ import annotations

import torch
from torch import Tensor


class KeyValueCache:
    """A static cache.

    `keys` and `values` are (layers, B, kv_heads, positions, head_dim), of which the first `length` positions
    hold.

    Every layer writes its new rows with `extend`; after the last one `advance` moves `length` on.
    """

    def __init__(
        self, layers: int, batch: int, kv_heads: int, positions: int, head_dim: int, like: Tensor
    ) -> None:
        self.keys = like.new_zeros(layers, batch, kv_heads, positions, head_dim)
        self.values = torch.zeros_like(self.keys)
        self.length = 0

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new rows (B, kv_heads, T, D) of `layer`; returns all its keys and values so far."""
        end = self.length + key.shape[-2]
        self.keys[layer, :, :, self.length : end] = key
        self.values[layer, :, :, self.length : end] = value
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, steps: int) -> None:
        """Count `steps` more positions as past."""
        self.length += steps
