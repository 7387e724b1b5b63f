"""Who may look at whom: one object for training, for the cache and for export."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mask:
    """Which keys a query may attend to, by position.

    Build one with `Mask.causal()`, `Mask.window(w)`, `Mask.prefix(p)` or `Mask.full()`.

    Args:
        looks_ahead: whether a query may see later positions.
        reach: how many positions a query sees, itself included; None for all.
        prefix_len: the first positions, which everyone may see.
    """

    looks_ahead: bool = False
    reach: int | None = None
    prefix_len: int = 0

    @classmethod
    def causal(cls) -> Mask:
        """Each position sees itself and all before it."""
        return cls()

    @classmethod
    def window(cls, width: int) -> Mask:
        """Each position sees itself and the `width - 1` before it."""
        return cls(reach=width)

    @classmethod
    def prefix(cls, length: int) -> Mask:
        """The first `length` positions are seen by all, the rest is causal (a prefix language model)."""
        return cls(prefix_len=length)

    @classmethod
    def full(cls) -> Mask:
        """Everyone sees everyone."""
        return cls(looks_ahead=True)

    @property
    def is_plain_causal(self) -> bool:
        """Whether this is `Mask.causal()`, for which faster kernels exist."""
        return self == Mask()

    def allowed(self, queries: Tensor, keys: Tensor, key_lengths: Tensor | None = None) -> Tensor:
        """True where a query may look.

        Args:
            queries: positions of the queries, (T,).
            keys: positions of the keys, (S,).
            key_lengths: how many of its positions are real in each example, (B,); the rest is padding.

        Returns: (T, S), or (B, 1, T, S) with `key_lengths`: the 1 is for the heads.
        """
        distance = queries[:, None] - keys
        seen = torch.ones_like(distance, dtype=torch.bool) if self.looks_ahead else distance >= 0
        if self.reach is not None:
            seen = seen & (distance < self.reach)
        if self.prefix_len:
            seen = seen | (keys < self.prefix_len)
        if key_lengths is not None:
            return seen & (keys < key_lengths[:, None, None, None])
        return seen
