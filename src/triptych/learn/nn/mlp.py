"""Fully connected layers with an activation between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn


class MLP(nn.Sequential):
    """Linear layers of the given widths, `activation` after each but the last: (B, widths[0]) to (B,
    widths[-1]).

    Args:
        widths: the size of the input, of each hidden layer, and of the output.
        activation: makes the module that stands after each hidden layer.

    Weights start as `torch.nn.Linear` has them: uniform within 1 / sqrt(inputs).
    """

    def __init__(
        self, widths: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU, *, bias: bool = True
    ) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs, bias=bias), activation()]
        super().__init__(*layers[:-1])
