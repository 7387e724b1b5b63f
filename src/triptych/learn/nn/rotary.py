"""Rotary positions as a table."""

from __future__ import annotations

from torch import Tensor, nn

from triptych.learn.maths.attention import rotary_angles, rotate


class Rotary(nn.Module):
    """Cosines and sines of every position, (positions, head_dim / 2) each, saved with the weights.

    They are buffers, so they lie in `model.safetensors` and an exported graph reads the same bytes.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, positions: int, head_dim: int) -> None:
        super().__init__()
        angles = rotary_angles(positions, head_dim)
        self.register_buffer("cos", angles.cos().float())
        self.register_buffer("sin", angles.sin().float())

    def forward(self, x: Tensor, start: int) -> Tensor:
        """Turn x of shape (B, N, T, D), whose first position is `start`."""
        end = start + x.shape[-2]
        return rotate(x, self.cos[start:end], self.sin[start:end])
