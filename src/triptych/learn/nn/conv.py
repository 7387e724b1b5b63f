"""Convolutions that halve and double pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class Residual(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))): (B, C, H, W) to the same shape.

    Source: van den Oord et al. 2017, arXiv:1711.00937, section 4.1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map x of shape (B, C, H, W) to the same shape."""
        y: Tensor = x + self.layers(x)
        return y


class Downward(nn.Sequential):
    """A picture (B, channels[0], H, W) to a grid (B, outputs, H / 2^n, W / 2^n) for n + 1 channels: n times a
    3 x 3 convolution, the largest of each 2 x 2 pixels and a GELU, then residual blocks and a projection.
    """

    def __init__(self, channels: Sequence[int], outputs: int, *, blocks: int = 0) -> None:
        layers: list[nn.Module] = []
        for inputs, width in pairwise(channels):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.MaxPool2d(2), nn.GELU()]
        layers += [Residual(channels[-1]) for _ in range(blocks)]
        super().__init__(*layers, nn.Conv2d(channels[-1], outputs, 1))


class Upward(nn.Sequential):
    """A grid (B, inputs, h, w) to a picture (B, channels[0], 2^n h, 2^n w): `Downward` in reverse, each pixel
    becoming 2 x 2 of them before a convolution.
    """

    def __init__(self, inputs: int, channels: Sequence[int], *, blocks: int = 0) -> None:
        layers: list[nn.Module] = [nn.Conv2d(inputs, channels[-1], 1)]
        layers += [Residual(channels[-1]) for _ in range(blocks)]
        for width, outputs in pairwise(reversed(channels)):
            layers += [nn.GELU(), nn.Upsample(scale_factor=2), nn.Conv2d(width, outputs, 3, padding=1)]
        super().__init__(*layers)
