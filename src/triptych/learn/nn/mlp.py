"""Fully connected layers with an activation between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class MLP(nn.Sequential):
    """Linear layers of the given widths, `activation` after each but the last.

    Args:
        widths: the size of the input, of each hidden layer, and of the output.
        activation: makes the module that stands after each hidden layer.

    Weights start as `torch.nn.Linear` has them: uniform within 1 / sqrt(inputs).
    """

    def __init__(
        self, widths: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU, *, bias: bool = True
    ) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(inputs, outputs, bias=bias), activation()]
        super().__init__(*layers[:-1])

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, widths[0]) to (B, widths[-1])."""
        output: Tensor = super().forward(input)
        return output
