"""Names of the tensors that a bundle holds beside the model's own: weights rounded to eight bits, and the
scales of a cache.

`NAME.int8` is uint8 of shape (N, blocks, BLOCK): a weight of shape (N, K), K filled up with zeros, is
(`NAME.int8` - 128) * `NAME.int8_scale` with a float32 scale for each block, as onnxruntime's `MatMulNBits`
reads it.

`NAME.int8_rows` is int8 of the shape of the weight, (N, ...): times `NAME.int8_rows_scale`, float32 of shape
(N,), a scale for each output of the layer, it is the same weight, as graphs in operators of ONNX alone read
it.

`key_0.cache_scale`, float32 of shape (kv_heads, head_dim), is the scale of the first layer's keys in a cache
of eight bits, and `value_0.cache_scale` that of its values.
"""

from __future__ import annotations

BLOCK = 32
INT8, SCALE = ".int8", ".int8_scale"
ROWS, ROWS_SCALE = ".int8_rows", ".int8_rows_scale"
CACHE_SCALE = ".cache_scale"


def is_rounded(name: str) -> bool:
    """Whether a tensor is a rounded weight or some scales, and none of the model's own."""
    return name.endswith((INT8, SCALE, ROWS, ROWS_SCALE, CACHE_SCALE))
