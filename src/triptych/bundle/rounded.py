"""Names of the tensors that a bundle holds beside the model's own: weights rounded to eight bits.

`NAME.int8` is uint8 of shape (N, blocks, BLOCK): a weight of shape (N, K), K filled up with zeros, is
(`NAME.int8` - 128) * `NAME.int8_scale` with a float32 scale for each block, as onnxruntime's `MatMulNBits`
reads it.
"""

from __future__ import annotations

BLOCK = 32
INT8, SCALE = ".int8", ".int8_scale"


def is_rounded(name: str) -> bool:
    """Whether a tensor is a rounded weight or its scales, and none of the model's own."""
    return name.endswith((INT8, SCALE))
