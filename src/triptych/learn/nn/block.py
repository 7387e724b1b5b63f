"""The pre-norm Transformer block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from triptych.learn.nn.attention import SelfAttention
from triptych.learn.nn.cache import KeyValueCache
from triptych.learn.nn.mask import Mask
from triptych.learn.nn.mlp import MLP
from triptych.learn.nn.rotary import Rotary

Activation = Literal["gelu", "gelu_tanh", "relu", "silu", "tanh"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the MLP is `inner_width` wide inside.

    Source: Radford et al. 2019 (GPT-2), section 2.3; Xiong et al. 2020, arXiv:2002.04745, fig. 1b; as
    published.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int,
        *,
        inner_width: int,
        activation: Activation,
        bias: bool,
        norm_epsilon: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=norm_epsilon, bias=bias)
        self.attention = SelfAttention(width, heads, kv_heads, bias=bias, dropout=dropout)
        self.mlp_norm = nn.LayerNorm(width, eps=norm_epsilon, bias=bias)
        self.mlp = MLP((width, inner_width, width), ACTIVATIONS[activation], bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        mask: Mask,
        rotary: Rotary | None = None,
        cache: KeyValueCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Map x of shape (B, T, width) to the same shape; the arguments are `SelfAttention`'s."""
        x = x + self.dropout(self.attention(self.attention_norm(x), mask, rotary, cache, layer))
        x = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return x
