"""Fully connected layers."""

import torch
from torch import nn

from triptych.learn.nn import MLP


def test_an_mlp_has_the_widths_it_is_given_and_no_activation_at_the_end() -> None:
    shapes = [tuple(layer.weight.shape) for layer in MLP((5, 4, 3, 2)) if isinstance(layer, nn.Linear)]
    assert shapes == [(4, 5), (3, 4), (2, 3)]
    assert isinstance(MLP((5, 4, 3, 2))[-1], nn.Linear)


def test_an_mlp_is_its_matrix_products() -> None:
    mlp, x = MLP((5, 4, 2), nn.Tanh, bias=False).double(), torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(mlp(x), (x @ mlp[0].weight.T).tanh() @ mlp[2].weight.T)
